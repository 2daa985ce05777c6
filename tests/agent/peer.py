"""The agent's end of a link, driven by hand."""

from __future__ import annotations

from mitos.engine.fake.pipe import PipeEnd
from mitos.wire.link import Frame, FrameDecoder

__all__ = ["Peer"]


class Peer:
    """The agent's end, driven by hand."""

    def __init__(self, end: PipeEnd) -> None:
        self._end = end
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def next(self) -> Frame:
        while not self._frames:
            self._frames += self._decoder.feed(await self._end.read())
        return self._frames.pop(0)

    async def send(self, *frames: Frame) -> None:
        await self._end.write(b"".join(frame.encode() for frame in frames))

    async def send_bytes(self, data: bytes) -> None:
        await self._end.write(data)

    async def end(self) -> None:
        await self._end.close()
