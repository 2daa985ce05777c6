"""The living sandboxes by id: who has which id, who may take one, whose deadline runs.

Everything here is one step on the event loop: nobody sees a sandbox half moved. `node/node.py` does
what takes time (machines, snapshots) and comes here for what must be at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from mitos.node.deadline import Reaper
from mitos.node.ledger import EndReason, Ledger
from mitos.node.refusal import conflict, ended
from mitos.node.sandbox import Phase, Sandbox, SandboxRecord
from mitos.node.settings import NodeSettings
from mitos.wire.errors import ApiError

__all__ = ["Roster"]


class Roster:
    """The list of living sandboxes.

    Args:
        settings: limits.
        ledger: told of every change.
        reaper: keeps the deadlines.
    """

    def __init__(self, settings: NodeSettings, ledger: Ledger, reaper: Reaper) -> None:
        self._settings = settings
        self._ledger = ledger
        self._reaper = reaper
        self._sandboxes: dict[str, Sandbox] = {}
        self._reserved: set[str] = set()

    @contextlib.contextmanager
    def reserve(self, sandbox_ids: Sequence[str]) -> Iterator[None]:
        """Holds ids, so that no other request takes them while their machines come up."""
        taken = self._sandboxes.keys() | self._reserved
        for sandbox_id in sandbox_ids:
            if sandbox_id in taken:
                raise ApiError(
                    "invalid_input",
                    f"a sandbox named {sandbox_id} exists already",
                    remediation="Choose another id, or terminate that sandbox first.",
                    context={"sandbox": sandbox_id},
                    status=409,
                )
        if len(taken) + len(sandbox_ids) > self._settings.max_sandboxes:
            raise ApiError(
                "quota_exceeded",
                f"this server runs at most {self._settings.max_sandboxes} sandboxes",
                context={"dimension": "sandboxes", "limit": self._settings.max_sandboxes},
            )
        self._reserved.update(sandbox_ids)
        try:
            yield
        finally:
            self._reserved.difference_update(sandbox_ids)

    def add(self, sandbox: Sandbox) -> None:
        """Lists a sandbox under its id, which nobody else has."""
        self._sandboxes[sandbox.id] = sandbox

    def remove(self, sandbox: Sandbox, reason: EndReason) -> bool:
        """Takes a sandbox off the list and notes why; False when it is not on it any more."""
        if self.get(sandbox.id) is not sandbox:
            return False
        sandbox.phase = Phase.TERMINATING
        del self._sandboxes[sandbox.id]
        self._reaper.clear(sandbox.id)
        self._ledger.end_sandbox(sandbox.id, reason)
        return True

    def check_alive(self, sandbox: Sandbox) -> None:
        """Makes sure that a sandbox did not end during a wait.

        Raises:
            ApiError: it did.
        """
        if self._sandboxes.get(sandbox.id) is not sandbox:
            raise ended(sandbox.id, self._ledger.end_reason(sandbox.id))

    def stop_deadline(self, sandbox: Sandbox) -> None:
        """Lets the deadline of a sandbox stand still."""
        self._reaper.clear(sandbox.id)
        if sandbox.deadline is not None:
            sandbox.remaining_s = max(sandbox.deadline - time.time(), 0.0)

    def start_deadline(self, sandbox: Sandbox) -> None:
        """Lets the deadline of a sandbox go on, or its idle time if it has none."""
        if sandbox.remaining_s is not None:
            sandbox.deadline = time.time() + sandbox.remaining_s
            sandbox.remaining_s = None
        if sandbox.deadline is not None:
            self._reaper.set(sandbox.id, sandbox.deadline)
        elif self._settings.idle_timeout_s:
            self._reaper.set(sandbox.id, time.time() + self._settings.idle_timeout_s)

    @contextlib.contextmanager
    def reserve_place(self, sandbox_id: str, uid: str | None) -> Iterator[None]:
        """Holds the id of one life, or the free one it left, for who takes its place.

        Raises:
            ApiError: `invalid_input` (409), another life has the id.
        """
        holder = self._sandboxes.get(sandbox_id)
        if sandbox_id in self._reserved or (holder is not None and holder.uid != uid):
            raise conflict(
                sandbox_id,
                f"another sandbox is named {sandbox_id}",
                "Terminate that sandbox first.",
            )
        self._reserved.add(sandbox_id)
        try:
            yield
        finally:
            self._reserved.discard(sandbox_id)

    def move(self, child: Sandbox, sandbox_id: str) -> Sandbox | None:
        """Puts a child in its parent's place; returns the parent, which is on no list now.

        Preconditions: `reserve_place` holds the id.
        """
        old_id, parent = child.id, self._sandboxes.get(sandbox_id)
        if parent is not None:
            parent.phase = Phase.TERMINATING
        self._reaper.clear(sandbox_id)
        self._reaper.clear(old_id)
        self._ledger.end_sandbox(old_id, EndReason.TERMINATED)
        self._ledger.end_sandbox(sandbox_id, EndReason.TERMINATED)
        del self._sandboxes[old_id]
        child.tell_end()
        child.rename(sandbox_id)
        self._sandboxes[sandbox_id] = child
        self._ledger.rename_kin(child.uid, sandbox_id)
        self._ledger.add_sandbox(
            sandbox_id, template_id=child.template_id, machine_id=child.machine.id
        )
        self.start_deadline(child)
        return parent

    def descendants(self, sandbox: Sandbox) -> list[Sandbox]:
        """A sandbox and every living one that comes from it."""
        uids = {sandbox.uid}
        for kin in self._ledger.family(sandbox.uid):
            if kin.parent in uids:
                uids.add(kin.uid)
        return [each for each in self._sandboxes.values() if each.uid in uids]

    def living(self) -> list[Sandbox]:
        """Every sandbox, oldest first."""
        return list(self._sandboxes.values())

    def get(self, sandbox_id: str) -> Sandbox | None:
        """A sandbox, or None."""
        return self._sandboxes.get(sandbox_id)

    def find(self, sandbox_id: str) -> Sandbox:
        """A sandbox.

        Raises:
            ApiError: `not_found`, or `idle_timeout` when its deadline ended it.
        """
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None:
            return sandbox
        raise ended(sandbox_id, self._ledger.end_reason(sandbox_id))

    def replay(self, created: list[str] | None) -> list[SandboxRecord] | None:
        """What an earlier request of the same key made, if all of it still runs."""
        if created and all(name in self._sandboxes for name in created):
            return [self._sandboxes[name].record() for name in created]
        return None
