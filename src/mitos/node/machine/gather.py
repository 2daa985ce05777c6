"""Making several things at the same time, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["make_all"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


async def make_all(
    makers: Iterable[Callable[[], Awaitable[_T]]], *, undo: Callable[[_T], Awaitable[None]]
) -> list[_T]:
    """Runs all makers at the same time and returns what they made, in their order.

    When one fails, or the caller is canceled, the others are stopped, what was made is undone, and
    the first error is raised. A maker that is stopped frees what it had begun.
    """
    made: dict[int, _T] = {}

    async def make(index: int, maker: Callable[[], Awaitable[_T]]) -> None:
        made[index] = await maker()

    try:
        async with asyncio.TaskGroup() as group:
            for index, maker in enumerate(makers):
                group.create_task(make(index, maker))
    except BaseException as exc:
        for thing in made.values():
            try:
                await undo(thing)
            except Exception:  # noqa: BLE001  whatever it was, the others must go too
                _log.exception("what one of several made could not be undone")
        if isinstance(exc, BaseExceptionGroup):
            raise exc.exceptions[0] from None
        raise
    return [made[index] for index in sorted(made)]
