"""What goes out on a link: whole frames, in order.

A caller that gives up while the machine does not read leaves no half frame behind: the outbox owns
what is on its way.
"""

from __future__ import annotations

import asyncio
from collections import deque

from mitos.engine.base import ByteStream

__all__ = ["Outbox"]

ROOM_BYTES = 1 << 18
"""Past this senders wait: enough to keep the machine's pipe full."""


class Outbox:
    """Frames on their way to a machine.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """True while senders need not wait."""
        return self._size < ROOM_BYTES

    def put(self, frame: bytes) -> None:
        """Adds a frame."""
        self._frames.append(frame)
        self._size += len(frame)
        self._filled.set()

    async def wait_for_room(self) -> None:
        """Waits until little enough is on its way, or `wake` is called. One caller at a time."""
        self._room.clear()
        await self._room.wait()

    def wake(self) -> None:
        """Lets go of whoever waits for room: there will be none soon."""
        self._room.set()

    async def run(self) -> None:
        """Writes what is put.

        Raises:
            ConnectionError: the machine no longer reads.
        """
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._frames:
                data = b"".join(self._frames) if len(self._frames) > 1 else self._frames[0]
                self._frames.clear()
                await self._stream.write(data)
                self._size -= len(data)
                if self.has_room:
                    self._room.set()
