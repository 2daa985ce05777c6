"""The request stream of a call: its first message, and the others while answers are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

from mitos.server.body import BODY_STALL_S, stalled
from mitos.wire.errors import ApiError

__all__ = ["drop", "first", "flowing", "together"]

_T = TypeVar("_T")


async def first(request: AsyncIterator[Any], member: str) -> Any:
    """The first message's member, which must be the named one.

    Raises:
        ApiError: `invalid_input`.
    """
    message = await _in_time(request)
    if message is None or message.msg is None or message.msg.field != member:
        raise ApiError("invalid_input", f"the first message of the stream must be {member!r}")
    return message.msg.value


async def flowing(request: AsyncIterator[_T]) -> AsyncGenerator[_T]:
    """The messages of a request that has no reason to pause.

    Raises:
        ApiError: `canceled`, the next one does not come.
    """
    while (message := await _in_time(request)) is not None:
        yield message


async def _in_time(request: AsyncIterator[_T]) -> _T | None:
    try:
        async with asyncio.timeout(BODY_STALL_S):
            return await anext(request, None)
    except TimeoutError:
        raise stalled() from None


async def together(
    answers: AsyncIterator[_T], feed: Coroutine[Any, Any, None]
) -> AsyncGenerator[_T]:
    """The answers, while `feed` takes in the request beside them.

    When `feed` fails (the client went away, or sent what is no message), so does the answer: a
    command that nobody can hear any more must not go on until its deadline.
    """
    feeder = asyncio.create_task(feed, name="request-feeder")
    step: asyncio.Task[_T | None] | None = None
    try:
        while True:
            step = asyncio.create_task(_next(answers), name="next-answer")
            if not feeder.done():
                await asyncio.wait((step, feeder), return_when=asyncio.FIRST_COMPLETED)
            if feeder.done():
                feeder.result()
            answer = await step
            if answer is None:
                return
            yield answer
    finally:
        tasks = [task for task in (feeder, step) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(answers: AsyncIterator[_T]) -> _T | None:
    return await anext(answers, None)


async def drop(request: AsyncIterator[object]) -> None:
    """Takes in a request that nobody reads."""
    async for _ in request:
        pass
