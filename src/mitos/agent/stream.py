"""One stream of a machine's link: data with credit both ways, control messages, and how it ended.

`agent/link.py` carries the frames of all streams over the machine's bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

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

__all__ = ["Closed", "FrameSender", "LinkLostError", "LinkStream"]

_CREDIT_BATCH = DATA_LIMIT
"""Credit goes back in portions of this size: fewer frames, and the sender never runs dry."""


class LinkLostError(ConnectionError):
    """The link to an agent is gone; the machine cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a stream ended."""

    status: Status
    fields: Fields


class FrameSender(Protocol):
    """What a stream needs of its link."""

    async def send(self, frame: Frame) -> None:
        """Writes one frame, whole.

        Raises:
            LinkLostError: the link is gone.
        """
        ...

    async def end_stream(self, stream: LinkStream) -> None:
        """Cancels a stream that still runs and waits for its end."""
        ...


class LinkStream:
    """One stream of a link, opened by this side. A context manager: leaving it cancels it."""

    def __init__(self, link: FrameSender, stream_id: int) -> None:
        self._link = link
        self.id = stream_id
        self._chunks: deque[tuple[Channel, bytes]] = deque()
        self._readable = asyncio.Event()
        self._sendable = asyncio.Event()
        self._sendable.set()
        self._input_ended = False
        self._output_ended = False
        self._send_credit = INITIAL_CREDIT
        self._receive_credit = INITIAL_CREDIT
        self._owed_credit = 0
        self._closed: Closed | None = None
        self._lost: LinkLostError | None = None

    async def __aenter__(self) -> LinkStream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._link.end_stream(self)

    @property
    def ended(self) -> bool:
        """True once no more frames can come."""
        return self._closed is not None or self._lost is not None

    @property
    def closed(self) -> Closed | None:
        """How the acceptor ended the stream; None while it goes on."""
        return self._closed

    async def read(self) -> tuple[Channel, bytes] | None:
        """The next chunk of data, or None when no more comes.

        Raises:
            LinkLostError: the link broke first.
        """
        while not self._chunks:
            if self._lost is not None:
                raise self._lost
            if self._closed is not None or self._output_ended:
                return None
            self._readable.clear()
            await self._readable.wait()
        channel, data = self._chunks.popleft()
        await self._return_credit(len(data))
        return channel, data

    async def finish(self) -> Closed:
        """Drops remaining data and waits for the stream's end.

        Raises:
            LinkLostError: the link broke first.
        """
        while await self.read() is not None:
            pass
        while self._closed is None:
            if self._lost is not None:
                raise self._lost
            self._readable.clear()
            await self._readable.wait()
        return self._closed

    async def send(self, data: bytes) -> bool:
        """Sends input, waiting for credit; False when not all was taken.

        The stream ended in between, or the input had been ended before.
        """
        view = memoryview(data)
        while view and not self._input_ended:
            while self._send_credit == 0 and not self.ended:
                self._sendable.clear()
                await self._sendable.wait()
            if self._lost is not None:
                raise self._lost
            if self._closed is not None:
                return False
            size = min(len(view), self._send_credit, DATA_LIMIT)
            self._send_credit -= size
            payload = bytes(view[:size])
            await self._link.send(Frame(FrameType.DATA, self.id, Channel.INPUT, payload))
            view = view[size:]
        return not view

    async def send_eof(self) -> None:
        """Ends the input. Idempotent."""
        if not self.ended and not self._input_ended:
            self._input_ended = True
            await self._link.send(Frame(FrameType.EOF, self.id, Channel.INPUT))

    async def control(self, code: Control, fields: Fields) -> None:
        """Sends a control message of the running operation."""
        if not self.ended:
            await self._link.send(Frame(FrameType.CONTROL, self.id, code, fields.encode()))

    async def _return_credit(self, size: int) -> None:
        self._owed_credit += size
        if self._owed_credit < _CREDIT_BATCH or self.ended:
            return
        owed, self._owed_credit = self._owed_credit, 0
        self._receive_credit += owed
        await self._link.send(Frame(FrameType.CREDIT, self.id, 0, owed.to_bytes(4, "big")))

    # Called by the link's reader only.

    def take(self, frame: Frame) -> None:
        """Takes in one frame addressed to this stream."""
        match frame.type:
            case FrameType.DATA:
                self._receive_credit -= len(frame.payload)
                if self._receive_credit < 0:
                    raise LinkError(f"stream {self.id} sent more than its credit")
                self._chunks.append((_channel(frame), frame.payload))
                self._readable.set()
            case FrameType.CREDIT:
                self._send_credit += _credit(frame)
                self._sendable.set()
            case FrameType.CLOSE:
                self._closed = Closed(_status(frame), Fields.decode(frame.payload))
                self._wake()
            case FrameType.EOF:
                self._output_ended = self._output_ended or _channel(frame) is Channel.OUTPUT
                self._readable.set()
            case _:
                raise LinkError(f"{frame.type.name} on stream {self.id}")

    def lose(self, error: LinkLostError) -> None:
        """Fails every pending and later call."""
        self._lost = error
        self._wake()

    def _wake(self) -> None:
        self._readable.set()
        self._sendable.set()


def _channel(frame: Frame) -> Channel:
    return Channel(frame.channel)


def _credit(frame: Frame) -> int:
    if len(frame.payload) != 4:
        raise LinkError("a credit is 4 bytes")
    return int.from_bytes(frame.payload, "big")


def _status(frame: Frame) -> Status:
    try:
        return Status(frame.channel)
    except ValueError:
        raise LinkError(f"unknown status {frame.channel}") from None
