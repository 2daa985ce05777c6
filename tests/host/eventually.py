"""Waiting for what the kernel does in its own time, and counting what we hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

__all__ = ["descriptor_count", "until"]


async def until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Waits until the condition is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def descriptor_count() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
