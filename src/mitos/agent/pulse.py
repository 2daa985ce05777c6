"""Whether an agent answers: when it is asked, how long it may be silent, and when it is back.

An agent that is silent is not lost. It may be stopped, starved or stuck, and answers again when it
is let go on. Calls are told so instead of waiting, and the machine is kept.

An agent may also answer while a process of its machine on the host is stopped, and what needs that
process hangs. So while calls are open the engine is asked for such a process.

Time is counted in small steps: where this process stood still itself, the agent did too, and that
is no silence of its own. One step of it counts all the same: else a server that is always late
would never notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from mitos.engine.base import EngineError, HostProcess, Usage
from mitos.host.load import is_crowded
from mitos.host.stopwatch import Stopwatch

__all__ = ["Pulse", "Watched"]

IDLE_S = 6.0
"""An agent that nobody has heard for so long is asked for a sign of life."""

CALL_S = 0.5
"""So is one that has said nothing for so long after a call."""

LOOK_S = 1.0
"""How often the engine is asked for a stopped process while a call is open."""

SILENCE_S = 1.0
"""How long an agent may take to answer, if its machine does nothing and the host has time.

And how long a process on the host may be stopped.
"""

BUSY_SILENCE_S = 8.0
"""How long it may take if it is kept from answering by work."""

STEP_S = 0.25
_BUSY_SHARE = 0.2
"""The share of one CPU from which a machine is at work."""


class Watched(Protocol):
    """What is asked of a machine; each of an engine's can say it."""

    async def usage(self) -> Usage:
        """What it uses now."""
        ...

    async def stopped(self) -> HostProcess | None:
        """Its process on the host that is stopped."""
        ...


class Pulse:
    """Watches one agent.

    Args:
        ask: asks the agent for a sign of life; what it says then is told to `note`.
        changed: called when it stops or begins again to answer.
        is_used: says whether somebody waits for the agent.
        clock: held while silence is expected.
        machine: what the agent runs in; None: it is taken to do nothing.
    """

    def __init__(
        self,
        ask: Callable[[], None],
        changed: Callable[[], None],
        is_used: Callable[[], bool],
        clock: Stopwatch,
        machine: Watched | None,
    ) -> None:
        self.responsive = True
        self.stopped: HostProcess | None = None
        """Why it does not answer, as far as the host can tell."""
        self._ask = ask
        self._changed = changed
        self._is_used = is_used
        self._clock = clock
        self._machine = machine
        self._heard = asyncio.Event()
        self._heard_at = clock.now()
        self._called = asyncio.Event()
        self._called_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Something was heard."""
        self._heard_at = self._clock.now()
        self._heard.set()
        if not self.responsive and self.stopped is None:
            self._set(responsive=True)

    def expect(self) -> None:
        """A call has begun: the agent should be heard soon."""
        if self._heard_at >= self._called_at:
            self._called_at = self._clock.now()
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(CALL_S, self._look)

    async def watch(self) -> None:
        """Watches until it is cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if self._is_used() else IDLE_S):
                        await self._called.wait()
                if not self._clock.is_held:
                    self.stopped = await self._find_stopped()
                    if self.stopped is not None or self._is_silent():
                        await self._question()
                self._called.clear()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    def _is_silent(self) -> bool:
        now = self._clock.now()
        is_idle = now - self._heard_at >= IDLE_S
        return is_idle or self._heard_at < self._called_at <= now - CALL_S

    def _look(self) -> None:
        """Has the machine looked at, once its agent had time to answer the call."""
        self._alarm = None
        left = self._called_at + CALL_S - self._clock.now()
        if self._heard_at < self._called_at and left > 0:
            self._alarm = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._called.set()

    async def _question(self) -> None:
        """Asks, and waits until it answers and no process is stopped, however long it takes."""
        self._heard.clear()
        self._ask()
        silent_s = idle_s = 0.0
        at, spent = time.monotonic(), await self._read_cpu()
        while not self._clock.is_held or not self.responsive:
            await self._wait_step()
            self.stopped = await self._find_stopped()
            if self._heard.is_set() and self.stopped is None:
                break
            before, at = at, time.monotonic()
            if at - before > 2 * STEP_S:
                silent_s += STEP_S  # this process had no time itself
            else:
                spent_before, spent = spent, await self._read_cpu()
                silent_s += at - before
                is_busy = spent - spent_before > _BUSY_SHARE * STEP_S or is_crowded()
                waits = is_busy and self.stopped is None
                idle_s = 0.0 if waits else idle_s + at - before
            if self.responsive and (idle_s >= SILENCE_S or silent_s >= BUSY_SILENCE_S):
                self._set(responsive=False)
        if not self.responsive:
            self._set(responsive=True)

    async def _wait_step(self) -> None:
        """Waits for a sign of life, or where there was one already, for a moment."""
        if self._heard.is_set():
            await asyncio.sleep(STEP_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEP_S):
                await self._heard.wait()

    async def _read_cpu(self) -> float:
        if self._machine is not None:
            with contextlib.suppress(EngineError):
                return (await self._machine.usage()).cpu_seconds
        return 0.0

    async def _find_stopped(self) -> HostProcess | None:
        return None if self._machine is None else await self._machine.stopped()

    def _set(self, *, responsive: bool) -> None:
        self.responsive = responsive
        self._changed()
