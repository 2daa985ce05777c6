"""Time in which something ran: a monotonic clock that can be held.

Deadlines of work in a machine are measured by one of these, so that they stand still while the
machine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["Stopwatch"]

_CHECK_S = 0.05
"""How often a deadline that was put off is looked at again at most."""


class Stopwatch:
    """A clock that can be held.

    Args:
        clock: what it counts, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holds = 0
        self._held_at = 0.0
        self._stood_still_s = 0.0

    @property
    def is_held(self) -> bool:
        """True while it stands still."""
        return self._holds > 0

    def now(self) -> float:
        """Seconds, from an unknown start."""
        return (self._held_at if self._holds else self._clock()) - self._stood_still_s

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds it for the time of the block. Blocks may overlap."""
        if not self._holds:
            self._held_at = self._clock()
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._stood_still_s += self._clock() - self._held_at

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """Like `asyncio.timeout`, of time in which the clock was not held.

        Raises:
            TimeoutError: the block took longer.
        """
        async with asyncio.timeout(None) as limit:
            if seconds is None:
                yield
                return
            loop, end = asyncio.get_running_loop(), self.now() + seconds
            alarm: asyncio.TimerHandle

            def look() -> None:
                nonlocal alarm
                left = end - self.now()
                if left <= 0:
                    limit.reschedule(loop.time())
                else:
                    alarm = loop.call_later(max(left, _CHECK_S), look)

            alarm = loop.call_later(max(seconds, 0.0), look)
            try:
                yield
            finally:
                alarm.cancel()
