"""A byte stream between two ends in one process, bounded like a real pipe."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["OpenedEnd", "PipeEnd", "pipe"]

CAPACITY_BYTES = 1 << 20
READ_BYTES = 1 << 18


class _Flow:
    """One direction."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def read(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks or self._is_closed)
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > READ_BYTES:
                self._chunks.appendleft(chunk[READ_BYTES:])
                chunk = chunk[:READ_BYTES]
            self._size -= len(chunk)
            self._changed.notify_all()
            return chunk

    async def write(self, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < CAPACITY_BYTES or self._is_closed)
            if self._is_closed:
                raise BrokenPipeError("the other end is gone")
            self._chunks.append(data)
            self._size += len(data)
            self._changed.notify_all()

    async def drained(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._chunks or self._is_closed)
            if self._is_closed:
                raise BrokenPipeError("the other end is gone")

    async def close(self) -> None:
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class PipeEnd:
    """One end: a `ByteStream`."""

    def __init__(self, incoming: _Flow, outgoing: _Flow) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def opened(self) -> OpenedEnd:
        """The end as somebody opens it who may go, while the pipe stays for the next."""
        return OpenedEnd(self)

    async def read(self) -> bytes:
        """Waits for bytes; b"" once the other end is closed and drained."""
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        """Writes all of `data`, waiting while the pipe is full."""
        if data:
            await self._outgoing.write(data)

    async def drained(self) -> None:
        """Waits until the other end has read all that was written."""
        await self._outgoing.drained()

    async def close(self) -> None:
        """Closes both directions. Idempotent."""
        await self._incoming.close()
        await self._outgoing.close()


class OpenedEnd:
    """An end that somebody has opened: closing it leaves the pipe as it is."""

    def __init__(self, end: PipeEnd) -> None:
        self._end = end
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        """As the end's; b"" once this is closed."""
        reading = asyncio.ensure_future(self._end.read())
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else b""
        finally:
            for waiting in (reading, closing):
                waiting.cancel()

    async def write(self, data: bytes) -> None:
        """As the end's.

        Raises:
            ConnectionError: this is closed, or the other end is gone.
        """
        self._require_open()
        await self._end.write(data)

    async def drained(self) -> None:
        """As the end's.

        Raises:
            ConnectionError: this is closed, or the other end is gone.
        """
        self._require_open()
        await self._end.drained()

    async def close(self) -> None:
        """Lets go of the end. Idempotent."""
        self._closed.set()

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise ConnectionResetError("the stream is closed")


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Two connected ends."""
    one, other = _Flow(), _Flow()
    return PipeEnd(one, other), PipeEnd(other, one)
