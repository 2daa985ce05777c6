"""What an earlier server left: every sandbox whose machine lives goes on, and so do those asleep.

A row says which machine a sandbox has, and was written before or after each step in such an order
that a machine without a row is of a step that did not happen: it is swept. Where a step was cut
short between the machine and its row, the machine is right: a sandbox whose machine runs is ready,
whatever its row says of a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from mitos.agent.link import Link
from mitos.engine.base import Engine, EngineError, EngineFault, MachineEnd
from mitos.host.boot import boot_id
from mitos.node.end import EndReason, reason_of
from mitos.node.inside.budget import Budget
from mitos.node.lifecycle.creation import Creation
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.machine.pool import Pool
from mitos.node.machine.running import RunningMachine, destroy, leave
from mitos.node.machine.token import LinkTokens
from mitos.node.phase import Phase
from mitos.node.refusal import host_fault, translate
from mitos.node.state.persist import SandboxRow
from mitos.node.state.state import State
from mitos.wire.errors import ApiError

__all__ = ["Recovery"]

_log = logging.getLogger(__name__)

ADOPTED_AT_ONCE = 16
"""Each takes a few descriptors and some milliseconds of the engine's."""


class Recovery:
    """Takes over the sandboxes of an earlier server.

    Args:
        engine: has their machines.
        tokens: show the machines' agents that they may go on with us.
        state: of the home.
        pool: takes over what was kept ready.
        lifecycle: goes on with sandboxes.
        supervisor: makes them, and watches over their machines.
        creation: knows what families have used up.
    """

    def __init__(
        self,
        engine: Engine,
        tokens: LinkTokens,
        state: State,
        pool: Pool,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        creation: Creation,
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._state = state
        self._pool = pool
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._creation = creation
        self._budgets: dict[str, Budget] = {}
        self._slots = asyncio.Semaphore(ADOPTED_AT_ONCE)
        self._boot = boot_id()
        self._is_rebooted = state.last_boot.get() not in (None, self._boot)

    async def run(self) -> None:
        """Takes over all that lives, ends the rest, and removes what belongs to nobody.

        Raises:
            ApiError: the state cannot be read, or is of another version; the machines are of
                another engine or a later one; or the host has no descriptors for them. Nothing was
                ended or removed.
        """
        began = time.perf_counter()
        rows = self._state.sandboxes.living()
        self._require_engine(rows)
        last_uses = self._state.sandboxes.last_uses()
        found = await self._find_all(rows)
        asleep, living, adopted = set(), set(), 0
        for row, running in zip(rows, found, strict=True):
            if isinstance(running, EndReason):
                _log.warning("sandbox %s ended without its server: %s", row.id, running.value)
                self._state.sandboxes.end(row, running)
                continue
            living.add(row.uid)
            self._take_over(row, running, last_uses.get(row.uid))
            if running is None:
                asleep.add(row.uid)
            else:
                adopted += 1
        self._state.hibernations.sweep(asleep)
        self._state.checkpoints.sweep(living)
        await self._pool.adopt({row.machine_id for row in rows if row.machine_id})
        await self._engine.sweep()
        self._state.last_boot.set(self._boot)
        if rows:
            elapsed_ms = (time.perf_counter() - began) * 1000
            _log.info("adopted %d sandboxes in %.0f ms", adopted, elapsed_ms)

    def _require_engine(self, rows: Sequence[SandboxRow]) -> None:
        """Refuses sandboxes that another engine runs: this one knows nothing of them."""
        ours = f"{self._engine.name}-"
        for row in rows:
            if not row.snapshot_format.startswith(ours):
                engine = row.snapshot_format.partition("-")[0]
                raise ApiError(
                    "internal",
                    f"sandbox {row.id} of this home is of the {engine} engine",
                    remediation=f"Start the server with --engine {engine}, or with another --home.",
                    status=503,
                )

    async def _find_all(
        self, rows: Sequence[SandboxRow]
    ) -> list[RunningMachine | EndReason | None]:
        """What `_find` finds, for all or for none."""
        adopted: list[RunningMachine] = []

        async def find(row: SandboxRow) -> RunningMachine | EndReason | None:
            found = await self._find(row)
            if isinstance(found, RunningMachine):
                adopted.append(found)
            return found

        try:
            async with asyncio.TaskGroup() as group:
                found = [group.create_task(find(row)) for row in rows]
        except BaseException as exc:
            await asyncio.gather(*(leave(self._engine, running) for running in adopted))
            if isinstance(exc, BaseExceptionGroup):
                raise exc.exceptions[0] from None
            raise
        return [task.result() for task in found]

    async def _find(self, row: SandboxRow) -> RunningMachine | EndReason | None:
        """A sandbox's machine, None for one that is hibernated; or why it has ended."""
        if row.phase is Phase.HIBERNATED:
            if self._state.hibernations.is_readable(row, self._engine.snapshot_format):
                return None
            _log.error("sandbox %s cannot be woken: its snapshot is unreadable", row.id)
            return EndReason.UNREADABLE
        if row.machine_id is None:
            return EndReason.SERVER_STOPPED
        async with self._slots:
            try:
                machine = await self._engine.adopt(row.machine_id, row.spec)
            except EngineError as exc:
                what = f"sandbox {row.id} cannot be taken over"
                # It may be another time: by a later release, or when the host has what it takes.
                if exc.fault is EngineFault.UNAVAILABLE or host_fault(exc, what) is not None:
                    raise translate(exc, what) from exc
                _log.error("%s: %s", what, exc)
                return EndReason.LOST
        if isinstance(machine, MachineEnd):
            return EndReason.HOST_RESTARTED if self._is_rebooted else reason_of(machine)
        link = Link(machine.link, machine, token=self._tokens.of(row.machine_id))
        if not machine.is_paused:
            link.take_over()
        running = RunningMachine(machine, link, row.copied_bytes)
        is_copy = machine.id != row.machine_id
        return await self._identified(row, running) if is_copy else running

    async def _identified(
        self, row: SandboxRow, copy: RunningMachine
    ) -> RunningMachine | EndReason:
        """A copy, once its agent knows the token of its own machine: the next server has only that.

        Until then the row names the first machine, which is still there.
        """
        try:
            await self._supervisor.identify(copy, row.id)
        except ApiError as exc:
            _log.error("sandbox %s cannot be taken over: %s", row.id, exc)
            await destroy(self._engine, copy)
            return EndReason.LOST
        return copy

    def _take_over(
        self, row: SandboxRow, running: RunningMachine | None, last_active: float | None
    ) -> None:
        budget_id = row.budget_id
        if budget_id not in self._budgets:
            self._budgets[budget_id] = self._creation.budget(budget_id)
        sandbox = self._supervisor.new_sandbox(row, running, self._budgets[budget_id])
        if last_active is not None:
            sandbox.last_active = last_active
        self._lifecycle.take_over(sandbox)
        if running is not None:
            self._lifecycle.correct(
                sandbox, running.machine.id, is_paused=running.machine.is_paused
            )
            self._supervisor.adopt(sandbox)
