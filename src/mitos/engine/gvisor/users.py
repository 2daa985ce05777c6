"""Users of the host for sandboxes: one each, that nothing else on the host has.

gVisor starts a sandbox's kernel as nobody in a user namespace, where its root filesystem is an
image. Nobody is the same for all, so the runtime itself is started in a user namespace of ours, in
which nobody is a number of the sandbox's own. What runs there has no powers over the host, and none
over another sandbox.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mitos.host.user_namespace import UserNamespace

__all__ = ["User", "Users"]

# Numbers that no distribution gives to anybody: from where the containers of systemd end to where
# its foreign users begin. Each engine of a host has a block of them.
_FIRST = 0x7000_0000
_BLOCK = 0x1_0000
_BLOCKS = 0x0FFE

# Namespaces of ended sandboxes that are kept for the next ones: making one takes two processes.
_KEPT = 16

_ROOT = 0
_NOBODY = 65_534


@dataclass(frozen=True, slots=True)
class User:
    """A user of the host, and the namespace in which it is nobody.

    Attributes:
        number: its id, and its group's.
        namespace: where the runtime is started.
    """

    number: int
    namespace: UserNamespace


class Users:
    """Gives each sandbox a user. Its owner must `close` it when no sandbox is left.

    Args:
        state: the engine's state folder: engines with other folders use other numbers, but for one
            case in four thousand.
    """

    def __init__(self, state: Path) -> None:
        digest = hashlib.sha256(bytes(state)).digest()
        self._first = _FIRST + int.from_bytes(digest[:8], "big") % _BLOCKS * _BLOCK
        self._made = 0
        self._free: list[User] = []
        self._free_numbers: list[int] = []

    async def take(self) -> User:
        """A user that nobody else has, until it is given back.

        Raises:
            OSError: this host allows none, or all are taken.
        """
        if self._free:
            return self._free.pop()
        number = self._take_number()
        try:
            return User(number, await UserNamespace.make({_ROOT: _ROOT, _NOBODY: number}))
        except BaseException:
            self._free_numbers.append(number)
            raise

    def give_back(self, user: User) -> None:
        """Takes back the user of a sandbox that is gone."""
        if len(self._free) < _KEPT:
            self._free.append(user)
        else:
            user.namespace.close()
            self._free_numbers.append(user.number)

    def _take_number(self) -> int:
        if self._free_numbers:
            return self._free_numbers.pop()
        if self._made == _BLOCK:
            raise OSError(f"all {_BLOCK} users for sandboxes are taken")
        self._made += 1
        return self._first + self._made - 1

    def close(self) -> None:
        """Lets go of the users that are free. Idempotent."""
        while self._free:
            self._free.pop().namespace.close()
