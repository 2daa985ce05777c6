"""The living sandboxes: who has which id, and who may take one.

Everything here is one step on the event loop: nobody sees a sandbox half moved. Ids are unique
within an owner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from mitos.node.end import ended, unknown_sandbox
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.quota import Quota
from mitos.node.refusal import id_in_use
from mitos.node.state.sandbox import SandboxTable
from mitos.wire.errors import conflict

__all__ = ["Registry"]


class Registry:
    """The list of living sandboxes.

    Args:
        table: knows the ended ones.
        quota_of: an owner's bounds.
    """

    def __init__(self, table: SandboxTable, quota_of: Callable[[str], Quota]) -> None:
        self._table = table
        self._quota_of = quota_of
        self._by_uid: dict[str, Sandbox] = {}
        self._by_name: dict[tuple[str, str], Sandbox] = {}
        self._reserved: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def reserve(self, owner: str, sandbox_ids: Sequence[str]) -> Iterator[None]:
        """Holds ids, so that no other request takes them while their machines come up.

        Raises:
            ApiError: `invalid_input` (409), one is in use; `quota_exceeded`.
        """
        taken = {name for name in self._by_name.keys() | self._reserved if name[0] == owner}
        wanted = [(owner, sandbox_id) for sandbox_id in sandbox_ids]
        for name in wanted:
            if name in taken:
                raise id_in_use(name[1])
        self._quota_of(owner).check_sandboxes(len(taken) + len(wanted))
        self._reserved.update(wanted)
        try:
            yield
        finally:
            self._reserved.difference_update(wanted)

    @contextlib.contextmanager
    def reserve_place(self, owner: str, sandbox_id: str, uid: str | None) -> Iterator[None]:
        """Holds the id of a sandbox, or the free one it left, for who takes its place.

        Raises:
            ApiError: `invalid_input` (409), another sandbox has the id.
        """
        name = (owner, sandbox_id)
        holder = self._by_name.get(name)
        if name in self._reserved or (holder is not None and holder.uid != uid):
            raise conflict(
                f"another sandbox is named {sandbox_id}",
                "Terminate that sandbox first.",
                context={"sandbox": sandbox_id},
            )
        self._reserved.add(name)
        try:
            yield
        finally:
            self._reserved.discard(name)

    def add(self, sandbox: Sandbox) -> None:
        """Lists a sandbox under its id, which nobody else has."""
        self._by_uid[sandbox.uid] = self._by_name[sandbox.owner, sandbox.id] = sandbox

    def remove(self, sandbox: Sandbox) -> None:
        """Takes a sandbox off the list; its id is free."""
        del self._by_uid[sandbox.uid]
        del self._by_name[sandbox.owner, sandbox.id]

    def has(self, sandbox: Sandbox) -> bool:
        """True while the sandbox lives."""
        return sandbox.uid in self._by_uid

    def descendants(self, sandbox: Sandbox) -> list[Sandbox]:
        """A sandbox and every living one that comes from it."""
        uids = {sandbox.uid}
        for relative in self._table.family(sandbox.uid):
            if relative.parent in uids:
                uids.add(relative.uid)
        return [each for each in self._by_uid.values() if each.uid in uids]

    def living(self, owner: str | None = None) -> list[Sandbox]:
        """Every sandbox, or an owner's, oldest first."""
        return [each for each in self._by_uid.values() if owner in (None, each.owner)]

    def by_uid(self, uid: str) -> Sandbox | None:
        """The sandbox of a uid, or None when it has ended."""
        return self._by_uid.get(uid)

    def get(self, owner: str, sandbox_id: str) -> Sandbox | None:
        """A sandbox, or None."""
        return self._by_name.get((owner, sandbox_id))

    def find(self, owner: str, sandbox_id: str) -> Sandbox:
        """A sandbox.

        Raises:
            ApiError: `not_found`, or `idle_timeout` when its deadline ended it.
        """
        sandbox = self.get(owner, sandbox_id)
        if sandbox is not None:
            return sandbox
        found = self._table.end_reason(owner, sandbox_id)
        if found is None:
            raise unknown_sandbox(sandbox_id)
        reason, memory_mib = found
        raise ended(sandbox_id, reason, memory_mib=memory_mib)
