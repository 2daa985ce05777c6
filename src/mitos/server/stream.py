"""A request stream beside an answer stream: its first message, and the rest while answers go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from mitos.wire.errors import ApiError

__all__ = ["feeding", "first", "ignore", "nothing"]

_T = TypeVar("_T")


async def first(request: AsyncIterator[Any], member: str) -> Any:
    """The first message's member, which must be the named one.

    Raises:
        ApiError: `invalid_input`.
    """
    message = await anext(request, None)
    if message is None or message.msg is None or message.msg.field != member:
        raise ApiError("invalid_input", f"the first message of the stream must be {member!r}")
    return message.msg.value


@contextlib.asynccontextmanager
async def feeding(
    request: AsyncIterator[_T],
    take: Callable[[_T], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Gives each message to `take`, then calls `end`, while the block runs."""

    async def feed() -> None:
        async for message in request:
            await take(message)
        await end()

    feeder = asyncio.create_task(feed(), name="request-feeder")
    try:
        yield
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def ignore(_message: object) -> None:
    """Takes a message and drops it."""


async def nothing() -> None:
    """Does nothing at the end of a request."""
