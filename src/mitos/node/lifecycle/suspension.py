"""The verbs that make a sandbox stand still, and go on: pause, resume, hibernate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mitos.engine.base import Engine, EngineError, Machine
from mitos.node.lifecycle.freeze import Freezer
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.phase import Event, Phase
from mitos.node.refusal import busy, engine_errors
from mitos.node.state.hibernation import Hibernations
from mitos.wire.errors import ApiError

__all__ = ["Suspension"]

_log = logging.getLogger(__name__)

HIBERNATED_AT_ONCE = 4
"""When a server stops: more would only wait for the same disk."""


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
            await self._put_to_sleep(sandbox, _require_idle)

    async def hibernate_all(self, registry: Registry) -> None:
        """Hibernates every sandbox that has a machine; calls that are open end. Never fails.

        One that cannot be written is left as it is.
        """
        awake = [each for each in registry.living() if each.running is not None]
        slots = asyncio.Semaphore(HIBERNATED_AT_ONCE)

        async def hibernate(sandbox: Sandbox) -> None:
            sandbox.note_left()
            try:
                async with slots, self._supervisor.holding(sandbox, Event.HIBERNATE):
                    if sandbox.running is not None:
                        await self._put_to_sleep(sandbox, _require_nothing)
            except ApiError as exc:
                _log.error("sandbox %s is not hibernated: %s", sandbox.id, exc.cause or exc.message)

        await asyncio.gather(*map(hibernate, awake))

    async def _put_to_sleep(self, sandbox: Sandbox, require: Callable[[Sandbox], None]) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self._hibernations.clear, sandbox.uid)
            place = self._hibernations.place(sandbox.uid)
            snapshot = await self._freezer.snapshot(sandbox, place)
            require(sandbox)
            self._lifecycle.move(sandbox, Event.HIBERNATE, machine_id=None, spec=snapshot.spec)
            undo.pop_all()
        sandbox.paused.close()
        await self._supervisor.detach(sandbox)


def _require_nothing(sandbox: Sandbox) -> None:
    pass


def _require_idle(sandbox: Sandbox) -> None:
    if sandbox.is_busy:
        raise busy(sandbox.id, "hibernated")


async def _try(order: Callable[[Machine], Awaitable[None]], machine: Machine) -> None:
    """Undoes an order; the machine may have ended meanwhile."""
    with contextlib.suppress(EngineError):
        await order(machine)
