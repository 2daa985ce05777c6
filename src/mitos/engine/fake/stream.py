"""The agent's side of one stream: input as it comes, output as credit allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mitos.wire.link import (
    DATA_LIMIT,
    INITIAL_CREDIT,
    Channel,
    Control,
    Fields,
    Frame,
    FrameType,
    LinkError,
    Status,
)

__all__ = ["Stream", "StreamEnd"]

Send = Callable[[Frame], Awaitable[None]]


class StreamEnd(Exception):  # noqa: N818  how a stream ends, not always an error
    """The stream is over: with this status and these fields."""

    def __init__(self, status: Status, fields: Fields) -> None:
        super().__init__(status.name)
        self.status = status
        self.fields = fields


class Stream:
    """One stream the server opened.

    Args:
        stream_id: as the server chose it.
        fields: of its `OPEN`.
        send: writes a frame to the link.
    """

    def __init__(self, stream_id: int, fields: Fields, send: Send) -> None:
        self.id = stream_id
        self.fields = fields
        self.task: asyncio.Task[None] | None = None
        self.is_canceled = False
        self.is_forgotten = False
        self.is_command = False
        self.on_control: Callable[[Control, Fields], None] | None = None
        self._send = send
        self._chunks: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._has_ended = False
        self._send_credit = INITIAL_CREDIT
        self._receive_credit = INITIAL_CREDIT

    def take(self, frame: Frame) -> None:
        """Takes one frame of the server.

        Raises:
            LinkError: the frame breaks the document.
        """
        match frame.type:
            case FrameType.DATA | FrameType.EOF if self._has_ended or frame.channel:
                raise LinkError("input after its end, or on a channel that is not the input")
            case FrameType.DATA:
                self._receive_credit -= len(frame.payload)
                if self._receive_credit < 0:
                    raise LinkError("data beyond the credit")
                self._chunks.append(frame.payload)
            case FrameType.EOF:
                self._has_ended = True
            case FrameType.CREDIT:
                self._send_credit += int.from_bytes(frame.payload, "big")
            case FrameType.CANCEL:
                self.cancel()
            case FrameType.CONTROL:
                self._control(frame)
        self._changed.set()

    def cancel(self) -> None:
        """Ends the work."""
        self.is_canceled = True
        if self.task is not None:
            self.task.cancel()

    def forget(self) -> None:
        """No frame is sent for it any more; waiting output is dropped."""
        self.is_forgotten = self._has_ended = True
        self._changed.set()

    async def read(self) -> bytes:
        """The next input, b"" at its end."""
        while not self._chunks and not self._has_ended:
            await self._wait()
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        self._receive_credit += len(chunk)
        await self.send(FrameType.CREDIT, 0, len(chunk).to_bytes(4, "big"))
        return chunk

    async def write(self, data: bytes, channel: Channel = Channel.OUTPUT) -> None:
        """Sends output as credit allows."""
        view = memoryview(data)
        while view and not self.is_forgotten:
            while not self._send_credit and not self.is_forgotten:
                await self._wait()
            piece = bytes(view[: min(self._send_credit, DATA_LIMIT)])
            self._send_credit -= len(piece)
            view = view[len(piece) :]
            await self.send(FrameType.DATA, channel, piece)

    async def send(self, kind: FrameType, channel: int, payload: bytes) -> None:
        """Sends a frame of the stream, unless it is forgotten."""
        if not self.is_forgotten:
            await self._send(Frame(kind, self.id, channel, payload))

    def _control(self, frame: Frame) -> None:
        fields = Fields.decode(frame.payload)
        if self.on_control is not None and frame.channel in list(Control):
            self.on_control(Control(frame.channel), fields)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
