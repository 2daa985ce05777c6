"""Turns of an event loop, for tasks that have much to do: one in each round.

When a hundred of them have something at the same time, the loop would do all of it before it looks
at anything else. In turns, a short request waits for one of them and not for a hundred.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

__all__ = ["LARGE_BYTES", "turn"]

LARGE_BYTES = 1024
"""From here on handling a piece of data is much to do; what people type and read is less."""

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def turn() -> None:
    """Waits for the caller's turn in the running loop; it lasts until the caller waits again."""
    loop = asyncio.get_running_loop()
    lock = _locks.get(loop)
    if lock is None:
        lock = _locks[loop] = asyncio.Lock()
    async with lock:
        await asyncio.sleep(0)
