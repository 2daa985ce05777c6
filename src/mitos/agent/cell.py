"""A cell on its way through a kernel: its code in, its events out, its deadline in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mitos.agent.answer import check
from mitos.agent.stream import Deadline, LinkStream, StreamFailedError
from mitos.wire.link import KernelEvent, KernelEventDecoder, KernelEventKind, Status, Tag

__all__ = ["NO_KERNEL_EXIT_CODE", "running_cell"]

NO_KERNEL_EXIT_CODE = 127

CODE_GRACE_S = 6.0
"""How long after a cell's deadline its agent may take to end it: it is killed 3 s after it."""


@contextlib.asynccontextmanager
async def running_cell(
    stream: LinkStream, source: bytes, language: str, timeout_s: float | None
) -> AsyncIterator[AsyncIterator[KernelEvent]]:
    """Sends a cell's code and gives its events; the last one is `DONE`."""
    helpers = [
        asyncio.create_task(_feed(stream, source), name="code-feeder"),
        asyncio.create_task(_limit(stream, language, timeout_s), name="code-limit"),
    ]
    try:
        yield _events(stream, language)
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)


async def _feed(stream: LinkStream, source: bytes) -> None:
    with contextlib.suppress(StreamFailedError):
        if await stream.send(source):
            await stream.send_eof()


async def _limit(stream: LinkStream, language: str, timeout_s: float | None) -> None:
    """Keeps a cell's deadline, which begins when those before it have ended."""
    async with stream.turn(f"cell {language}"):
        if timeout_s is not None:
            stream.limit(Deadline(stream.clock, timeout_s, CODE_GRACE_S))
        await asyncio.Event().wait()


async def _events(stream: LinkStream, language: str) -> AsyncIterator[KernelEvent]:
    decoder, done = KernelEventDecoder(), False
    while (chunk := await stream.read()) is not None:
        for event in decoder.feed(chunk[1]):
            done = done or event.kind is KernelEventKind.DONE
            yield event
    closed = await stream.finish()
    if done:
        return
    if closed.status is not Status.UNAVAILABLE:
        check(closed, "")
    message = closed.fields.get_text(Tag.MESSAGE) or f"no kernel for {language!r} in this sandbox"
    yield KernelEvent.error("KernelUnavailable", message)
    yield KernelEvent(KernelEventKind.DONE, bytes([NO_KERNEL_EXIT_CODE]))
