"""Watches over the sandboxes' machines: what serves one, what ends it, what takes its place.

A sandbox's machine may end by itself, break its link, pass its deadline, go to disk and come back.
All of that is here; what users ask for is in `node/node.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from mitos.engine.base import Engine, MachineEnd
from mitos.node.budget import Budget
from mitos.node.checkpoint import Shelf
from mitos.node.deadline import Reaper
from mitos.node.egress import serve_egress
from mitos.node.fork import Forker
from mitos.node.launch import Launched, destroy
from mitos.node.ledger import EndReason, Ledger
from mitos.node.pool import Pool
from mitos.node.roster import Roster
from mitos.node.sandbox import Phase, Sandbox, SandboxRecord
from mitos.node.self_service import SelfService, serve_self_service
from mitos.node.settings import NodeSettings
from mitos.node.sleep import Bed
from mitos.wire.errors import ApiError

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

END_REASON_DEADLINE_S = 2.0
"""How long a machine whose link broke may take to say why; one that still runs is then ended."""

_REASON_OF_END = {
    MachineEnd.OUT_OF_MEMORY: EndReason.OUT_OF_MEMORY,
    MachineEnd.EXITED: EndReason.EXITED,
    MachineEnd.LOST: EndReason.LOST,
    MachineEnd.DESTROYED: EndReason.TERMINATED,
}


class Supervisor:
    """Gives sandboxes their machines, and takes them away.

    Attributes:
        roster: every sandbox that lives.

    Args:
        settings: limits.
        engine: ends machines.
        ledger: remembers which machine a sandbox has.
        shelf: checkpoints, which end with their sandbox.
        bed: what hibernated ones wake from.
        forker: makes machines.
        pool: stands aside while one is made.
        fork_from_inside: makes children that a sandbox asks for itself.
    """

    def __init__(
        self,
        settings: NodeSettings,
        engine: Engine,
        ledger: Ledger,
        shelf: Shelf,
        bed: Bed,
        forker: Forker,
        pool: Pool,
        fork_from_inside: Callable[[Sandbox, Sequence[str]], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._ledger = ledger
        self._shelf = shelf
        self._bed = bed
        self._forker = forker
        self._pool = pool
        self._fork_from_inside = fork_from_inside
        self._reaper = Reaper(self._end_at_deadline)
        self.roster = Roster(settings, ledger, self._reaper)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Takes over what hibernated under an earlier server; begins to watch deadlines."""
        self._load_hibernated()
        self._reaper.start()

    async def close(self) -> None:
        """Ends every sandbox but the hibernated ones, and stops watching. Idempotent."""
        awake = [s for s in self.roster.living() if s.phase is not Phase.HIBERNATED]
        await asyncio.gather(*(self.end(s, EndReason.SERVER_STOPPED) for s in awake))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reaper.close()

    def add(
        self, record: SandboxRecord, body: Launched | None, budget: Budget | None = None
    ) -> Sandbox:
        """A sandbox under its id; its machine, if it has one, is watched after `take_over`."""
        sandbox = Sandbox(
            record,
            body=body,
            max_streams=self._settings.max_streams,
            budget=budget or Budget(self._settings.guest_forks),
            wake=self._wake,
        )
        self.roster.add(sandbox)
        return sandbox

    def take_over(self, sandbox: Sandbox, launched: Launched) -> None:
        """Remembers which machine a sandbox has, serves what connects from it, watches over it."""
        self._ledger.add_sandbox(
            sandbox.id, template_id=sandbox.template_id, machine_id=launched.machine.id
        )
        self._keep(self._watch(sandbox, launched), f"watch-{sandbox.id}")
        service = SelfService(sandbox, self._fork_from_inside)
        self._keep(serve_self_service(launched.link, service), f"self-service-{sandbox.id}")
        if sandbox.network.allows_egress:
            egress = serve_egress(launched.link, sandbox.network, sandbox.id)
            self._keep(egress, f"egress-{sandbox.id}")

    def _keep(self, work: Coroutine[None, None, None], name: str) -> None:
        """Runs what ends with a sandbox's machine."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, sandbox: Sandbox, launched: Launched) -> None:
        """Gives a sandbox up when its machine ends by itself or its link breaks."""
        waits = [
            asyncio.create_task(launched.link.lost.wait()),
            asyncio.create_task(launched.machine.wait_end()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if sandbox.phase is Phase.TERMINATING or sandbox.body is not launched:
            return
        end = MachineEnd.LOST
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_REASON_DEADLINE_S):
                end = await launched.machine.wait_end()
        if sandbox.body is launched:
            _log.warning("sandbox %s ended by itself: %s", sandbox.id, end.value)
            await self.end(sandbox, _REASON_OF_END[end])

    async def _wake(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            await self.wake(sandbox)

    async def wake(self, sandbox: Sandbox) -> None:
        """Brings a hibernated sandbox up again; the snapshot stays until it runs.

        Preconditions: the caller holds `sandbox.lock`.
        """
        self.roster.check_alive(sandbox)
        if sandbox.snapshot is None:
            return
        with self._pool.foreground():
            launched = await self._forker.wake(sandbox.snapshot, sandbox.id)
        await self.give_machine(sandbox, launched)

    async def give_machine(self, sandbox: Sandbox, launched: Launched) -> Launched | None:
        """Gives a sandbox a new machine; returns the old one, now the caller's."""
        try:
            self.roster.check_alive(sandbox)
        except ApiError:
            await destroy(self._engine, launched)
            raise
        old, sandbox.body = sandbox.body, launched
        sandbox.snapshot = None
        sandbox.phase = Phase.READY
        sandbox.last_active = time.time()
        self.take_over(sandbox, launched)
        self.roster.start_deadline(sandbox)
        self._bed.clear(sandbox.uid)
        return old

    async def take_machine(self, sandbox: Sandbox) -> None:
        """Ends the machine of a sandbox that lives on without one."""
        body, sandbox.body = sandbox.body, None
        if body is not None:
            await destroy(self._engine, body)

    def save_sleeper(self, sandbox: Sandbox) -> None:
        """Notes a hibernated sandbox, with what is left of its deadline."""
        if sandbox.snapshot is not None:
            body = self._bed.encode(
                sandbox.record(),
                sandbox.remaining_s,
                sandbox.snapshot.spec,
                self._engine.snapshot_format,
            )
            self._ledger.hibernate(sandbox.id, body)

    def _load_hibernated(self) -> None:
        """Takes over what hibernated under an earlier server, and ends all else it left."""
        for body in self._ledger.hibernated():
            record, remaining_s, snapshot = self._bed.decode(body, self._engine.snapshot_format)
            if snapshot is None:
                _log.error("sandbox %s cannot be woken: its snapshot is unreadable", record.id)
                self._ledger.end_sandbox(record.id, EndReason.UNREADABLE)
                continue
            sandbox = self.add(record, None)
            sandbox.snapshot, sandbox.remaining_s = snapshot, remaining_s
        living = [sandbox.uid for sandbox in self.roster.living()]
        self._bed.sweep(living)
        self._shelf.sweep(living)
        self._ledger.end_other_kin(living, EndReason.SERVER_STOPPED)

    async def end(self, sandbox: Sandbox, reason: EndReason) -> None:
        """Ends a sandbox, unless somebody else is doing it."""
        if self.roster.remove(sandbox, reason):
            await self.finish_end(sandbox, reason)

    async def finish_end(self, sandbox: Sandbox, reason: EndReason) -> None:
        """Frees what a sandbox had that is in no list any more."""
        self._ledger.end_kin(sandbox.uid, reason)
        self._shelf.delete_all(sandbox.uid)
        self._bed.clear(sandbox.uid)
        sandbox.tell_end()
        if sandbox.body is not None:
            await destroy(self._engine, sandbox.body)

    async def _end_at_deadline(self, sandbox_id: str) -> None:
        sandbox = self.roster.get(sandbox_id)
        if sandbox is None:
            return
        if sandbox.deadline is None:
            now = time.time()
            last_active = now if sandbox.is_busy else sandbox.last_active
            if (due := last_active + self._settings.idle_timeout_s) > now:
                self._reaper.set(sandbox_id, due)
                return
        await self.end(sandbox, EndReason.DEADLINE)
