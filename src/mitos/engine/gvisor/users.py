"""Users of the host for sandboxes: one each, that nothing else on the host has.

gVisor starts a sandbox's kernel as nobody in a user namespace, where its root filesystem is an
image. Nobody is the same for all, so the runtime itself is started in a user namespace of ours, in
which nobody is a number of the sandbox's own. What runs there has no powers over the host, and none
over another sandbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
        namespace: where the runtime is started; None for one whose sandbox an earlier process made.
    """

    number: int
    namespace: UserNamespace | None = None

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command of ours as one who becomes this user.

        Preconditions: it has a namespace.
        """
        assert self.namespace is not None
        return self.namespace.entering(argv)

    def close(self) -> None:
        """Lets go of the namespace. Idempotent."""
        if self.namespace is not None:
            self.namespace.close()


class Users:
    """Gives each sandbox a user. Its owner must `close` it when no sandbox is left.

    Args:
        state: the engine's state folder: engines with other folders use other numbers, but for one
            case in four thousand.
    """

    def __init__(self, state: Path) -> None:
        digest = hashlib.sha256(bytes(state)).digest()
        self._first = _FIRST + int.from_bytes(digest[:8], "big") % _BLOCKS * _BLOCK
        self._free: list[User] = []
        self._taken: set[int] = set()

    def reserve(self, number: int) -> None:
        """Keeps the number of a sandbox that an earlier process made, until it is given back."""
        self._taken.add(number)

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
            self._taken.discard(number)
            raise

    def give_back(self, user: User) -> None:
        """Takes back the user of a sandbox that is gone."""
        if len(self._free) < _KEPT and user.namespace is not None:
            self._free.append(user)
        else:
            user.close()
            self._taken.discard(user.number)

    def _take_number(self) -> int:
        for number in range(self._first, self._first + _BLOCK):
            if number not in self._taken:
                self._taken.add(number)
                return number
        raise OSError(f"all {_BLOCK} users for sandboxes are taken")

    def close(self) -> None:
        """Lets go of the users that are free. Idempotent."""
        while self._free:
            self._free.pop().close()
