"""Gives sandboxes their machines, watches over them, and takes them away.

A sandbox's machine may end by itself, break its link, pass its deadline, go to disk and come back.
All of that is here; the verbs beside this file say when.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

from mitos.agent.link import Link
from mitos.agent.stream import LinkLostError
from mitos.node.clock import Clock
from mitos.node.end import EndReason, reason_of
from mitos.node.inside.budget import Budget
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.machine.launcher import Launcher
from mitos.node.machine.running import RunningMachine
from mitos.node.phase import Event, Phase
from mitos.node.settings import NodeSettings, OnStop
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import SandboxRow
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from mitos.wire.link import LinkError, Tag

__all__ = ["Service", "Supervisor"]

_log = logging.getLogger(__name__)

END_REASON_DEADLINE_S = 1.0
"""How long a machine whose link broke may take to say why; one that still runs is then ended."""

LEAVE_DEADLINE_S = 30.0
"""How long a step of a sandbox may take to end when the server stops; it is cut short then."""

Service = Callable[[Sandbox, Link], Coroutine[None, None, None] | None]
"""Serves what programs in a sandbox connect to, until its link is lost; None serves nothing."""


class Supervisor:
    """Looks after the machines of all sandboxes.

    Args:
        settings: limits.
        launcher: makes and ends machines.
        lifecycle: told of what happens to sandboxes.
        registry: the living.
        state: what is kept for them.
        clock: dates their use.
    """

    def __init__(
        self,
        settings: NodeSettings,
        launcher: Launcher,
        lifecycle: Lifecycle,
        registry: Registry,
        state: State,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._registry = registry
        self._state = state
        self._clock = clock
        self._services: Sequence[Service] = ()
        self.on_stop = OnStop.LEAVE
        """What `close` does with sandboxes; until a server has started, it leaves them alone."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, services: Sequence[Service]) -> None:
        """Serves these to every sandbox that gets a machine from now on."""
        self._services = services

    async def close(self) -> None:
        """Ends every sandbox that has a machine, or leaves it, and stops watching. Idempotent."""
        self._lifecycle.close()
        awake = [s for s in self._registry.living() if s.running is not None]
        if self.on_stop is OnStop.END:
            await asyncio.gather(*(self.end(s, EndReason.SERVER_STOPPED) for s in awake))
        else:
            await asyncio.gather(*map(self._leave, awake))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def new_sandbox(
        self, row: SandboxRow, running: RunningMachine | None, budget: Budget
    ) -> Sandbox:
        """A sandbox that has not begun yet; it owns the machine."""
        return Sandbox(
            row,
            running=running,
            max_streams=self._settings.max_streams,
            budget=budget,
            wake=self._wake_for_call,
            clock=self._clock,
        )

    def attach(self, sandbox: Sandbox) -> None:
        """Watches over a living sandbox's machine and serves what connects from it."""
        running = sandbox.running
        assert running is not None
        self._keep(self._watch(sandbox, running), f"watch-{sandbox.uid}")
        for service in self._services:
            work = service(sandbox, running.link)
            if work is not None:
                self._keep(work, f"service-{sandbox.uid}")

    def adopt(self, sandbox: Sandbox) -> None:
        """As `attach`, for a machine that an earlier server had."""
        running = sandbox.awake
        if sandbox.phase is Phase.PAUSED:
            sandbox.paused.callback(running.link.take_over)
            sandbox.paused.enter_context(running.link.clock.held())
        self.attach(sandbox)
        self._keep(self._confirm(sandbox, running), f"confirm-{sandbox.uid}")

    async def identify(self, running: RunningMachine, sandbox_id: str) -> None:
        """Has a running machine know whose it is, by a token of its own.

        Raises:
            ApiError: it did not confirm.
        """
        await self._launcher.rename(running, sandbox_id)

    async def detach(self, sandbox: Sandbox) -> None:
        """Ends the machine of a sandbox that lives on without one."""
        running, sandbox.running = sandbox.running, None
        if running is not None:
            await self._launcher.destroy(running)

    @contextlib.asynccontextmanager
    async def holding(self, sandbox: Sandbox, event: Event) -> AsyncIterator[None]:
        """Holds a sandbox for an event, woken if it must be: nobody else changes it meanwhile.

        Raises:
            ApiError: it has ended, the event is refused in its phase, or it cannot be woken.
        """
        async with sandbox.lock:
            try:
                if self._lifecycle.check(sandbox, event).wakes_first:
                    await self.wake(sandbox)
                yield
            except ApiError as exc:
                if sandbox.end_reason is None:
                    raise
                # Whatever failed, it did because the sandbox ended meanwhile.
                raise sandbox.refusal() from exc

    async def wake(self, sandbox: Sandbox) -> None:
        """Brings a hibernated sandbox up again; the snapshot stays until it runs.

        Preconditions: the caller holds `sandbox.lock`.

        Raises:
            ApiError: it does not come up; it sleeps on.
        """
        self._lifecycle.check(sandbox, Event.WAKE)
        if sandbox.phase is Phase.HIBERNATED:
            snapshot = self._state.hibernations.snapshot(sandbox.row)
            running = await self._launcher.launch(snapshot, sandbox.id)
            await self.replace_machine(sandbox, Event.WAKE, running)

    async def replace_machine(
        self, sandbox: Sandbox, event: Event, running: RunningMachine
    ) -> None:
        """Gives a sandbox a new machine, which it owns, and ends the one it had.

        Preconditions: the caller holds `sandbox.lock`.

        Raises:
            ApiError: it has ended meanwhile, or the state cannot be written; the new machine is
                gone, and the sandbox is as it was.
        """
        machine = running.machine
        try:
            self._lifecycle.move(
                sandbox,
                event,
                machine_id=machine.id,
                spec=machine.spec,
                copied_bytes=running.copied_bytes,
            )
        except ApiError:
            await self._launcher.destroy(running)
            raise
        old, sandbox.running = sandbox.running, running
        sandbox.paused.close()
        sandbox.note_use()
        self.attach(sandbox)
        self._state.hibernations.clear(sandbox.uid)
        if old is not None:
            await self._launcher.destroy(old)

    async def end(self, sandbox: Sandbox, reason: EndReason) -> None:
        """Ends a sandbox, unless it has ended already. Never fails."""
        if self._registry.has(sandbox):
            checkpoint_ids = self._checkpoint_ids(sandbox)
            self._lifecycle.end(sandbox, reason)
            await self._free(sandbox, checkpoint_ids)

    async def replace_sandbox(
        self, sandbox: Sandbox, sandbox_id: str, key: KeyUse | None = None
    ) -> None:
        """Gives a sandbox the id of another, which ends.

        Preconditions: `Registry.reserve_place` holds the id.

        Raises:
            ApiError: the state cannot be written; both are as they were.
        """
        replaced = self._registry.get(sandbox.owner, sandbox_id)
        checkpoint_ids = [] if replaced is None else self._checkpoint_ids(replaced)
        self._lifecycle.rename(sandbox, sandbox_id, replaced, key)
        if replaced is not None:
            await self._free(replaced, checkpoint_ids)

    async def expire(self, uid: str) -> None:
        """Ends a sandbox whose deadline has passed, or that has been idle for too long."""
        sandbox = self._registry.by_uid(uid)
        if sandbox is not None and not self._lifecycle.watch_idle(sandbox):
            await self.end(sandbox, EndReason.DEADLINE)

    def _checkpoint_ids(self, sandbox: Sandbox) -> list[str]:
        """Those of a sandbox that is about to end; the end forgets them."""
        try:
            return self._state.checkpoints.ids(sandbox.uid)
        except ApiError:
            return []  # what cannot be read now is swept at the next start

    async def _free(self, sandbox: Sandbox, checkpoint_ids: Sequence[str]) -> None:
        """Frees what a sandbox had that has ended."""
        for checkpoint_id in checkpoint_ids:
            self._state.checkpoints.discard(checkpoint_id)
        self._state.hibernations.clear(sandbox.uid)
        if sandbox.running is not None:
            await self._launcher.destroy(sandbox.running)

    async def _wake_for_call(self, sandbox: Sandbox) -> None:
        async with self.holding(sandbox, Event.CALL):
            pass

    async def _leave(self, sandbox: Sandbox) -> None:
        """Lets go of a sandbox, which goes on and is adopted by the next server. Never fails."""
        sandbox.note_left()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_DEADLINE_S):
                await sandbox.lock.acquire()  # for good: nobody changes it any more
        running, sandbox.running = sandbox.running, None
        if running is not None:
            await self._launcher.leave(running)

    async def _confirm(self, sandbox: Sandbox, running: RunningMachine) -> None:
        """Has a machine be who its sandbox is: an earlier server may have renamed it halfway."""
        try:
            told = (await running.link.hello()).get_text(Tag.SANDBOX_ID)
            if told != sandbox.id:
                await self._launcher.rename(running, sandbox.id)
        except LinkLostError:
            pass  # `_watch` sees to it
        except (LinkError, ApiError) as exc:
            _log.warning("sandbox %s did not say who it is: %s", sandbox.id, exc)

    def _keep(self, work: Coroutine[None, None, None], name: str) -> None:
        """Runs what ends with a sandbox's machine."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, sandbox: Sandbox, running: RunningMachine) -> None:
        """Ends a sandbox when its machine ends by itself or its link breaks.

        An agent that only does not answer is neither: it may go on.
        """
        waits = [
            asyncio.create_task(running.link.lost.wait()),
            asyncio.create_task(running.machine.wait_end()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if not self._registry.has(sandbox) or sandbox.running is not running:
            return
        reason = await _loss(running)
        if sandbox.running is running and self._registry.has(sandbox):
            _log.warning("sandbox %s ended by itself: %s", sandbox.id, reason.value)
            await self.end(sandbox, reason)


async def _loss(running: RunningMachine) -> EndReason:
    """Why a machine cannot be used any more."""
    error = running.link.lost_error
    if error is not None and error.is_violated:
        return EndReason.PROTOCOL
    try:
        async with asyncio.timeout(END_REASON_DEADLINE_S):
            return reason_of(await running.machine.wait_end())
    except TimeoutError:
        return EndReason.UNRESPONSIVE
