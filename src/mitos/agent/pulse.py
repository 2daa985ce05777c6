"""Whether an agent answers: when it is asked, how long it may be silent, and when it is back.

An agent that is silent is not lost. It may be stopped, starved or stuck, and answers again when it
is let go on. Calls are told so instead of waiting, and the machine is kept.

Time is counted in small steps: where this process stood still itself, the agent did too, and that
is no silence of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from mitos.engine.base import EngineError, Usage
from mitos.host.load import is_crowded
from mitos.host.stopwatch import Stopwatch

__all__ = ["Pulse"]

IDLE_S = 6.0
"""An agent that nobody has heard for so long is asked for a sign of life."""

CALL_S = 0.5
"""So is one that has said nothing for so long after a call."""

SILENCE_S = 1.0
"""How long an agent may take to answer, if its machine does nothing and the host has time."""

BUSY_SILENCE_S = 8.0
"""How long it may take if it is kept from answering by work."""

STEP_S = 0.25
_BUSY_SHARE = 0.2
"""The share of one CPU from which a machine is at work."""


class Pulse:
    """Watches one agent.

    Args:
        ask: asks the agent for a sign of life; what it says then is told to `note`.
        changed: called when it stops or begins again to answer.
        clock: held while silence is expected.
        usage: reads what the machine uses; None: it is taken to do nothing.
    """

    def __init__(
        self,
        ask: Callable[[], None],
        changed: Callable[[], None],
        clock: Stopwatch,
        usage: Callable[[], Awaitable[Usage]] | None,
    ) -> None:
        self.responsive = True
        self._ask = ask
        self._changed = changed
        self._clock = clock
        self._usage = usage
        self._heard = asyncio.Event()
        self._heard_at = clock.now()
        self._called = asyncio.Event()
        self._called_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Something was heard."""
        self._heard_at = self._clock.now()
        self._heard.set()
        if not self.responsive:
            self._set(responsive=True)

    def expect(self) -> None:
        """A call has begun: the agent should be heard soon."""
        self._called_at = self._clock.now()
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(CALL_S, self._look)

    async def watch(self) -> None:
        """Watches until it is cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._called.wait()
                idle = self._clock.now() - self._heard_at >= IDLE_S
                if (idle or self._called.is_set()) and not self._clock.is_held:
                    await self._question()
                self._called.clear()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    def _look(self) -> None:
        """Has the agent asked when nothing was heard since the last call."""
        self._alarm = None
        if self._heard_at >= self._called_at:
            return
        left = self._called_at + CALL_S - self._clock.now()
        if left > 0:
            self._alarm = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._called.set()

    async def _question(self) -> None:
        """Asks, and waits for the answer however long it takes."""
        self._heard.clear()
        self._ask()
        silent_s = idle_s = 0.0
        at, spent = time.monotonic(), await self._read_cpu()
        while self.responsive and not self._clock.is_held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STEP_S):
                    await self._heard.wait()
                    return
            before, at = at, time.monotonic()
            if at - before > 2 * STEP_S:
                continue  # this process had no time itself
            spent_before, spent = spent, await self._read_cpu()
            silent_s += at - before
            is_busy = spent - spent_before > _BUSY_SHARE * STEP_S or is_crowded()
            idle_s = 0.0 if is_busy else idle_s + at - before
            if idle_s >= SILENCE_S or silent_s >= BUSY_SILENCE_S:
                self._set(responsive=False)
        if not self.responsive:
            await self._heard.wait()

    async def _read_cpu(self) -> float:
        if self._usage is not None:
            with contextlib.suppress(EngineError):
                return (await self._usage()).cpu_seconds
        return 0.0

    def _set(self, *, responsive: bool) -> None:
        self.responsive = responsive
        self._changed()
