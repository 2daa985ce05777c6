"""Named pipes as a byte stream of the event loop.

A sandbox holds both ends of its two pipes, so they outlive us. We open only the end we use: reading
then ends, and writing fails, once the sandbox is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from pathlib import Path

from mitos.host.turns import LARGE_BYTES, turn

__all__ = ["PipeStream", "make_pipe"]

_READ_BYTES = 1 << 18
# The largest an unprivileged process may ask for by default: fewer wake-ups for big transfers.
_PIPE_BYTES = 1 << 20

_FIRST_POLL_S, _LAST_POLL_S = 0.001, 0.1
_INT = struct.Struct("i")


def make_pipe(path: Path) -> int:
    """Makes a named pipe and returns a descriptor open at both ends, which keeps it alive.

    Raises:
        OSError: it cannot be made.
    """
    os.mkfifo(path, 0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    # A smaller pipe works as well: users other than root have a quota of pipe memory.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return descriptor


class PipeStream:
    """Reads one named pipe and writes another. One reader, any number of writers."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._write_lock = asyncio.Lock()

    @classmethod
    def open(cls, *, source: Path, sink: Path) -> PipeStream:
        """Opens both pipes; each needs somebody at its other end.

        Raises:
            OSError: a pipe is missing or nobody holds its other end.
        """
        reading = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            writing = os.open(sink, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            os.close(reading)
            raise
        return cls(reading, writing)

    async def read(self) -> bytes:
        """Waits for bytes; returns 1 to 262,144 of them, or b"" once the other side is gone."""
        while not self._closed:
            try:
                data = os.read(self._source, _READ_BYTES)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader, self._source)
                continue
            # Nobody whose peer always has bytes may starve the other tasks of the loop.
            await (turn() if len(data) >= LARGE_BYTES else asyncio.sleep(0))
            return data
        return b""

    async def write(self, data: bytes) -> None:
        """Writes all of `data`, waiting while the other side is slow.

        A cancelled write leaves part of `data` written: the stream is then of no more use.

        Raises:
            ConnectionError: the other side is gone, or the stream is closed.
        """
        async with self._write_lock:
            rest = memoryview(data)
            while rest:
                if self._closed:
                    raise ConnectionResetError("the stream is closed")
                try:
                    rest = rest[os.write(self._sink, rest) :]
                except BlockingIOError:
                    await self._ready(self._loop.add_writer, self._loop.remove_writer, self._sink)

    async def drained(self) -> None:
        """Waits until the other side has read all that was written, also by an earlier process.

        Raises:
            ConnectionError: the stream is closed.
        """
        wait_s = _FIRST_POLL_S
        while not self._closed:
            left = fcntl.ioctl(self._sink, termios.FIONREAD, bytes(_INT.size))
            if _INT.unpack(left) == (0,):
                return
            # The kernel tells when there is room in a pipe, and not when it is empty.
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_POLL_S)
        raise ConnectionResetError("the stream is closed")

    async def close(self) -> None:
        """Frees the descriptors; pending reads return b"". Idempotent."""
        self.close_now()

    def close_now(self) -> None:
        """`close` for callers that cannot wait."""
        if self._closed:
            return
        self._closed = True
        for ready in self._waiting:
            _complete(ready)
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        os.close(self._source)
        os.close(self._sink)

    async def _ready(
        self,
        add: Callable[..., None],
        remove: Callable[[int], bool],
        descriptor: int,
    ) -> None:
        ready = self._loop.create_future()
        self._waiting.add(ready)
        add(descriptor, _complete, ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            if not self._closed:
                remove(descriptor)


def _complete(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
