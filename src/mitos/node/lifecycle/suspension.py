"""The verbs that make a sandbox stand still, and go on: pause, resume, hibernate."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from mitos.engine.base import Engine, EngineError, Machine
from mitos.node.lifecycle.freeze import Freezer
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.phase import Event, Phase
from mitos.node.refusal import busy, engine_errors
from mitos.node.state.hibernation import Hibernations

__all__ = ["Suspension"]


class Suspension:
    """Pauses, resumes and hibernates sandboxes.

    Args:
        engine: pauses machines.
        freezer: holds agents still.
        lifecycle: told of what happened.
        supervisor: wakes sandboxes, and takes their machines.
        hibernations: where the snapshots go.
    """

    def __init__(
        self,
        engine: Engine,
        freezer: Freezer,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        hibernations: Hibernations,
    ) -> None:
        self._engine = engine
        self._freezer = freezer
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._hibernations = hibernations

    async def pause(self, sandbox: Sandbox) -> None:
        """Stops every process, and the sandbox's deadline with them. Idempotent.

        Raises:
            ApiError: the engine's failure, or the state cannot be written; it runs on.
        """
        async with self._supervisor.holding(sandbox, Event.PAUSE):
            if sandbox.phase is Phase.PAUSED:
                return
            async with self._freezer.frozen(sandbox):
                with engine_errors(f"sandbox {sandbox.id} could not be paused"):
                    await self._engine.pause(sandbox.machine)
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(_try, self._engine.resume, sandbox.machine)
                self._lifecycle.move(sandbox, Event.PAUSE)
                undo.pop_all()
            sandbox.paused.enter_context(sandbox.link.clock.held())

    async def resume(self, sandbox: Sandbox) -> None:
        """Undoes `pause` or `hibernate`; the deadline goes on from where it stood. Idempotent.

        Raises:
            ApiError: the engine's failure, or the state cannot be written; it stands still.
        """
        async with self._supervisor.holding(sandbox, Event.RESUME):
            sandbox.note_use()
            if sandbox.phase is not Phase.PAUSED:
                return
            with engine_errors(f"sandbox {sandbox.id} could not be resumed"):
                await self._engine.resume(sandbox.machine)
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(_try, self._engine.pause, sandbox.machine)
                self._lifecycle.move(sandbox, Event.RESUME)
                undo.pop_all()
            sandbox.paused.close()

    async def hibernate(self, sandbox: Sandbox) -> None:
        """Writes a sandbox to disk and frees its memory; the next call wakes it. Idempotent.

        Its deadline stands still meanwhile, and it outlives the server.

        Raises:
            ApiError: `invalid_input` (409) while calls are open; the engine's failure, or the state
                cannot be written. The sandbox then goes on as it was.
        """
        async with self._supervisor.holding(sandbox, Event.HIBERNATE):
            if sandbox.phase is Phase.HIBERNATED:
                return
            _require_idle(sandbox)
            with contextlib.ExitStack() as undo:
                undo.callback(self._hibernations.clear, sandbox.uid)
                place = self._hibernations.place(sandbox.uid)
                snapshot = await self._freezer.snapshot(sandbox, place)
                _require_idle(sandbox)
                self._lifecycle.move(sandbox, Event.HIBERNATE, machine_id=None, spec=snapshot.spec)
                undo.pop_all()
            sandbox.paused.close()
            await self._supervisor.detach(sandbox)


def _require_idle(sandbox: Sandbox) -> None:
    if sandbox.is_busy:
        raise busy(sandbox.id, "hibernated")


async def _try(order: Callable[[Machine], Awaitable[None]], machine: Machine) -> None:
    """Undoes an order; the machine may have ended meanwhile."""
    with contextlib.suppress(EngineError):
        await order(machine)
