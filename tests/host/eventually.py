"""Waiting for what the kernel does in its own time, and counting what we hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

__all__ = ["descriptors", "settled_descriptors", "until"]


async def until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Waits until the condition is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def descriptors() -> set[str]:
    """The descriptors this process has open, each with what it is.

    Compare sets, not counts: servers of other tests live in this process and may close some.
    """
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            found.add(f"{entry.name} -> {entry.readlink()}")
    return found


async def settled_descriptors(*, quiet_s: float = 1.0, timeout_s: float = 15.0) -> set[str]:
    """The same, once nobody in this process has opened one for a while.

    Raises:
        TimeoutError: somebody opens them all the time.
    """
    async with asyncio.timeout(timeout_s):
        before = descriptors()
        while True:
            await asyncio.sleep(quiet_s)
            now = descriptors()
            if now <= before:
                return now
            before = now
