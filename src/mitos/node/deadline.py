"""The reaper: calls back for every sandbox whose deadline has passed.

One task sleeps until the earliest deadline; setting or clearing one wakes it. Deadlines are unix
seconds, since that is what users are told; a clock that jumps moves them with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

__all__ = ["Reaper"]

_log = logging.getLogger(__name__)

MAX_SLEEP_S = 60.0
"""The clock is looked at at least this often, so that a jump is noticed."""


class Reaper:
    """Deadlines by sandbox id.

    Args:
        expire: called once for each deadline that passed; its errors are logged.
    """

    def __init__(self, expire: Callable[[str], Awaitable[None]]) -> None:
        self._expire = expire
        self._deadlines: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts reaping."""
        self._task = asyncio.create_task(self._run(), name="reaper")

    async def close(self) -> None:
        """Stops reaping. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def set(self, sandbox_id: str, deadline: float) -> None:
        """Sets or replaces a deadline, in unix seconds."""
        self._deadlines[sandbox_id] = deadline
        self._changed.set()

    def clear(self, sandbox_id: str) -> None:
        """Forgets a deadline, if there is one."""
        self._deadlines.pop(sandbox_id, None)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            for sandbox_id in self._passed(time.time()):
                self.clear(sandbox_id)
                await self._expire_one(sandbox_id)
            next_deadline = min(self._deadlines.values(), default=float("inf"))
            sleep_s = min(max(next_deadline - time.time(), 0.0), MAX_SLEEP_S)
            try:
                async with asyncio.timeout(sleep_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _passed(self, now: float) -> list[str]:
        return [name for name, deadline in self._deadlines.items() if deadline <= now]

    async def _expire_one(self, sandbox_id: str) -> None:
        try:
            await self._expire(sandbox_id)
        except Exception:  # noqa: BLE001  the edge of the reaper's task: one sandbox must not end it
            _log.exception("sandbox %s could not be ended at its deadline", sandbox_id)
