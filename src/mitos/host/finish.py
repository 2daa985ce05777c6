"""Work that cannot be called back once it has begun."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["finish"]

_T = TypeVar("_T")


async def finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs work to its end even when the caller is cancelled; the cancellation then goes on.

    For orders that have deadlines of their own.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        task.cancelled() or task.exception()  # collected, so that nobody warns about it
        raise
