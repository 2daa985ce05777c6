"""The only writer of a sandbox's row: it begins sandboxes, moves them, ends them.

Each step asks the table (`node/phase.py`), writes the row with its event in one transaction, and
only then changes what the process knows: a step that cannot be written has not happened. The end
of a sandbox is the exception: it always happens, and is written later if need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mitos.node.clock import Clock
from mitos.node.end import EndReason
from mitos.node.lifecycle.deadline import Reaper
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.phase import Event, Phase, Transition, transition
from mitos.node.refusal import server_stopping
from mitos.node.state.event import EventKind
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import SandboxRow
from mitos.node.state.sandbox import SandboxTable

__all__ = ["Lifecycle"]


class Lifecycle:
    """Changes what sandboxes are.

    Args:
        table: where rows are saved.
        registry: the living.
        reaper: keeps the deadlines.
        clock: what deadlines are measured by.
        idle_timeout_s: a sandbox without a deadline ends when nobody used it for so long; 0: never.
    """

    def __init__(
        self,
        table: SandboxTable,
        registry: Registry,
        reaper: Reaper,
        clock: Clock,
        idle_timeout_s: int,
    ) -> None:
        self._table = table
        self._registry = registry
        self._reaper = reaper
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._is_closed = False

    def close(self) -> None:
        """Refuses every further step: who has a machine by it could not keep it. Idempotent."""
        self._is_closed = True

    def begin(self, sandboxes: Sequence[Sandbox], key: KeyUse | None) -> None:
        """Begins all that one request made.

        Raises:
            ApiError: the state cannot be written, or the server stops; none has begun.
        """
        if self._is_closed:
            raise server_stopping()
        self._table.begin([sandbox.row for sandbox in sandboxes], key)
        for sandbox in sandboxes:
            self.take_over(sandbox)

    def take_over(self, sandbox: Sandbox) -> None:
        """Goes on with a sandbox that an earlier server began."""
        self._registry.add(sandbox)
        self._follow_deadline(sandbox)

    def correct(self, sandbox: Sandbox, machine_id: str, *, is_paused: bool) -> None:
        """Makes the row of an adopted sandbox say what its machine is. Never fails.

        Args:
            sandbox: that has a machine.
            machine_id: of that machine.
            is_paused: it stands still.
        """
        phase = Phase.PAUSED if is_paused else Phase.READY
        row = self._with_deadline(sandbox.row, phase)
        row = replace(row, phase=phase, machine_id=machine_id)
        if row != sandbox.row:
            self._table.correct(row)
            sandbox.row = row
            self._follow_deadline(sandbox)

    def check(self, sandbox: Sandbox, event: Event) -> Transition:
        """What follows the event.

        Raises:
            ApiError: it is refused in the phase the sandbox is in, or the sandbox has ended.
        """
        found = transition(sandbox.phase, event)
        if found is None:
            raise sandbox.refusal()
        if self._is_closed:
            raise server_stopping()
        return found

    def move(self, sandbox: Sandbox, event: Event, **changes: Any) -> None:
        """Moves a sandbox to the phase that follows the event.

        Args:
            sandbox: who it happened to.
            event: what happened.
            changes: further members of the row.

        Raises:
            ApiError: it is refused; or the state cannot be written. The sandbox is as it was.
        """
        phase = self.check(sandbox, event).to
        row = replace(self._with_deadline(sandbox.row, phase), phase=phase, **changes)
        kind = EventKind.RESTORED if event is Event.RESTORE else EventKind.PHASE
        self._write(sandbox, row, kind)

    def set_deadline(self, sandbox: Sandbox, timeout_s: int) -> int:
        """Sets or replaces the deadline: so many seconds from now, or of running time.

        Returns:
            The deadline in unix seconds, as if it ran.

        Raises:
            ApiError: the state cannot be written; the earlier deadline stays.
        """
        deadline = self._clock.now() + timeout_s
        remaining_s = timeout_s if sandbox.phase.stands_still else None
        row = replace(sandbox.row, deadline=deadline, remaining_s=remaining_s)
        self._write(sandbox, row, EventKind.DEADLINE)
        return int(deadline)

    def rename(
        self,
        sandbox: Sandbox,
        sandbox_id: str,
        replaced: Sandbox | None,
        key: KeyUse | None = None,
    ) -> None:
        """Gives a sandbox another id; the living one that has it now ends.

        Preconditions: `Registry.reserve_place` holds the id.

        Raises:
            ApiError: the state cannot be written; both are as they were.
        """
        row = replace(sandbox.row, id=sandbox_id)
        self._table.rename(row, replaced=replaced.row if replaced else None, key=key)
        if replaced is not None:
            self._leave(replaced, EndReason.TERMINATED)
        self._registry.remove(sandbox)
        sandbox.row = row
        self._registry.add(sandbox)

    def end(self, sandbox: Sandbox, reason: EndReason) -> None:
        """Ends a sandbox. Never fails.

        Preconditions: it lives.
        """
        self._table.end(sandbox.row, reason)
        self._leave(sandbox, reason)

    def watch_idle(self, sandbox: Sandbox) -> bool:
        """Has the reaper look again at a sandbox that is not due yet; False when it is due."""
        if sandbox.row.deadline is not None:
            return False
        now = self._clock.now()
        last_active = now if sandbox.is_busy else sandbox.last_active
        due = last_active + self._idle_timeout_s
        if due > now:
            self._reaper.set(sandbox.uid, due)
        return due > now

    def _leave(self, sandbox: Sandbox, reason: EndReason) -> None:
        self._registry.remove(sandbox)
        self._reaper.clear(sandbox.uid)
        sandbox.row = replace(sandbox.row, phase=Phase.TERMINATING)
        sandbox.note_end(reason)

    def _write(self, sandbox: Sandbox, row: SandboxRow, kind: EventKind) -> None:
        if row == sandbox.row:
            return
        self._table.change(row, kind)
        sandbox.row = row
        self._follow_deadline(sandbox)

    def _with_deadline(self, row: SandboxRow, phase: Phase) -> SandboxRow:
        """The row with its deadline in the phase: it stands still and goes on with the sandbox."""
        if row.deadline is None or phase.stands_still is (row.remaining_s is not None):
            return row
        if phase.stands_still:
            return replace(row, remaining_s=max(row.deadline - self._clock.now(), 0.0))
        assert row.remaining_s is not None
        return replace(row, deadline=self._clock.now() + row.remaining_s, remaining_s=None)

    def _follow_deadline(self, sandbox: Sandbox) -> None:
        """Has the reaper watch the deadline, or the idle time of a sandbox without one."""
        row = sandbox.row
        if row.phase.stands_still:
            self._reaper.clear(row.uid)
        elif row.deadline is not None:
            self._reaper.set(row.uid, row.deadline)
        elif self._idle_timeout_s:
            self._reaper.set(row.uid, sandbox.last_active + self._idle_timeout_s)
