"""Wall time, passed in: deadlines are unix seconds, since that is what users are told.

Tests pass one that moves when told.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Reads the time and waits for it."""

    def now(self) -> float:
        """Unix seconds. The clock may be set: later readings may be smaller."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits; a clock that is set meanwhile does not change how long."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
