"""The reaper: calls back for every sandbox whose deadline has passed.

One task sleeps until the earliest deadline; setting or clearing one wakes it. Deadlines are unix
seconds, since that is what users are told; a clock that jumps moves them with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mitos.node.clock import Clock

__all__ = ["Reaper"]

_log = logging.getLogger(__name__)

MAX_SLEEP_S = 60.0
"""The clock is looked at at least this often, so that a jump is noticed."""


class Reaper:
    """Deadlines by sandbox uid.

    Args:
        clock: says what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadlines: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, expire: Callable[[str], Awaitable[None]]) -> None:
        """Starts reaping.

        Args:
            expire: called once for each deadline that passed; its errors are logged.
        """
        self._task = asyncio.create_task(self._run(expire), name="reaper")

    async def close(self) -> None:
        """Stops reaping. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def set(self, uid: str, deadline: float) -> None:
        """Sets or replaces a deadline, in unix seconds."""
        self._deadlines[uid] = deadline
        self._changed.set()

    def clear(self, uid: str) -> None:
        """Forgets a deadline, if there is one."""
        self._deadlines.pop(uid, None)

    async def _run(self, expire: Callable[[str], Awaitable[None]]) -> None:
        while True:
            self._changed.clear()
            now = self._clock.now()
            for uid in [uid for uid, deadline in self._deadlines.items() if deadline <= now]:
                self.clear(uid)
                await _expire_one(expire, uid)
            next_deadline = min(self._deadlines.values(), default=float("inf"))
            await self._wait(min(max(next_deadline - self._clock.now(), 0.0), MAX_SLEEP_S))

    async def _wait(self, seconds: float) -> None:
        """Waits for the time, or for a change before it."""
        waits = [
            asyncio.create_task(self._changed.wait()),
            asyncio.create_task(self._clock.sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _expire_one(expire: Callable[[str], Awaitable[None]], uid: str) -> None:
    try:
        await expire(uid)
    except Exception:  # noqa: BLE001  the edge of the reaper's task: one sandbox must not end it
        _log.exception("sandbox %s could not be ended at its deadline", uid)
