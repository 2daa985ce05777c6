"""A clock that moves when told."""

from __future__ import annotations

import asyncio

__all__ = ["ManualClock"]


class ManualClock:
    """Time stands still until `advance`."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._advanced = asyncio.Event()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        until = self._now + seconds
        while self._now < until:
            await self._advanced.wait()

    async def advance(self, seconds: float) -> None:
        """Moves on, and lets everybody who waited act."""
        self._now += seconds
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()
        for _ in range(20):
            await asyncio.sleep(0)
