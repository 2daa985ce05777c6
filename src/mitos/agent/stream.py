"""One stream of a machine's link: data with credit both ways, control messages, and how it ended.

`agent/link.py` carries the frames of all streams over the machine's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from mitos.engine.base import HostProcess
from mitos.host.stopwatch import Stopwatch
from mitos.host.turns import LARGE_BYTES, turn
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

__all__ = [
    "Closed",
    "Deadline",
    "FrameSender",
    "LinkLostError",
    "LinkStream",
    "OverdueError",
    "StreamFailedError",
    "UnresponsiveError",
]

_CREDIT_BATCH = DATA_LIMIT
"""Credit goes back in portions of this size: fewer frames, and the sender never runs dry."""


class StreamFailedError(ConnectionError):
    """A stream cannot go on."""


class LinkLostError(StreamFailedError):
    """The link to an agent is gone; the machine cannot be used any more.

    Args:
        reason: what became of it.
        is_violated: the guest sent what the document of the link forbids.
    """

    def __init__(self, reason: str, *, is_violated: bool = False) -> None:
        super().__init__(reason)
        self.is_violated = is_violated


class UnresponsiveError(StreamFailedError):
    """The agent does not answer. The link stays, and is used again when it does.

    Args:
        stopped: the machine's process on the host that is stopped; None: none that we know of.
    """

    def __init__(self, stopped: HostProcess | None = None) -> None:
        super().__init__("the agent does not answer")
        self.stopped = stopped


class OverdueError(StreamFailedError):
    """The agent let a stream's deadline pass."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a stream ended."""

    status: Status
    fields: Fields


class Deadline:
    """When an agent must have ended a stream, as its server keeps it: a little later than it does.

    Only time in which somebody waits for the agent counts beyond it: a slow reader has all the time
    he needs for what was said before.

    Args:
        clock: stands still with the machine.
        seconds: what the agent was told.
        grace_s: how long may be waited for it beyond that.
    """

    def __init__(self, clock: Stopwatch, seconds: float, grace_s: float) -> None:
        self._clock = clock
        self._at = clock.now() + seconds
        self._grace_s = grace_s

    async def wait(self, event: asyncio.Event) -> None:
        """Waits for something the agent will say.

        Raises:
            OverdueError: it did not say it in time.
        """
        now = self._clock.now()
        try:
            async with self._clock.timeout(max(self._at - now, 0.0) + self._grace_s):
                await event.wait()
        except TimeoutError:
            raise OverdueError("the agent did not end a stream at its deadline") from None
        finally:
            self._grace_s -= max(self._clock.now() - max(now, self._at), 0.0)


class FrameSender(Protocol):
    """What a stream needs of its link."""

    clock: Stopwatch
    turns: MutableMapping[str, asyncio.Lock]

    async def send(self, frame: Frame) -> None:
        """Writes one frame, whole.

        Raises:
            LinkLostError: the link is gone.
            UnresponsiveError: the agent does not answer.
        """
        ...

    async def end_stream(self, stream: LinkStream) -> None:
        """Cancels a stream that still runs and waits for its end."""
        ...


class LinkStream:
    """One stream of a link, opened by this side. A context manager: leaving it cancels it.

    Args:
        link: carries its frames.
        stream_id: its number there.
        is_patient: it waits for what programs inside do, and outlives an agent's silence.
    """

    def __init__(self, link: FrameSender, stream_id: int, *, is_patient: bool = False) -> None:
        self._link = link
        self.id = stream_id
        self.is_patient = is_patient
        self._deadline: Deadline | None = None
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
        self._failure: StreamFailedError | None = None

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
    def clock(self) -> Stopwatch:
        """Time in which the machine ran."""
        return self._link.clock

    def turn(self, name: str) -> asyncio.Lock:
        """Held while the agent is at this stream, by those of which it runs one after the other."""
        return self._link.turns.setdefault(name, asyncio.Lock())

    def limit(self, deadline: Deadline) -> None:
        """Says until when the agent must have ended it."""
        self._deadline = deadline
        self._readable.set()

    @property
    def ended(self) -> bool:
        """True once nobody waits for more of it."""
        return self._closed is not None or self._failure is not None

    @property
    def closed(self) -> Closed | None:
        """How the acceptor ended the stream; None while it goes on."""
        return self._closed

    async def read(self) -> tuple[Channel, bytes] | None:
        """The next chunk of data, or None when no more comes.

        Raises:
            StreamFailedError: it failed first, or ran past its deadline.
        """
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._closed is not None or self._output_ended:
                return None
            await self._more()
        if len(self._chunks[0][1]) >= LARGE_BYTES:
            await turn()
        channel, data = self._chunks.popleft()
        await self._return_credit(len(data))
        return channel, data

    async def ready(self, within_s: float) -> bool:
        """True once `read` need not wait; False when so much time has passed first."""
        if not self._is_readable:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while not self._is_readable:
                        await self._more()
        return self._is_readable

    @property
    def _is_readable(self) -> bool:
        return bool(self._chunks) or self.ended or self._output_ended

    async def finish(self) -> Closed:
        """Drops remaining data and waits for the stream's end.

        Raises:
            StreamFailedError: it failed first, or ran past its deadline.
        """
        while await self.read() is not None:
            pass
        while self._closed is None:
            if self._failure is not None:
                raise self._failure
            await self._more()
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
            if self._failure is not None:
                raise self._failure
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

    async def _more(self) -> None:
        """Waits for the next frame."""
        self._readable.clear()
        if self._deadline is None:
            await self._readable.wait()
            return
        try:
            await self._deadline.wait(self._readable)
        except OverdueError as exc:
            self.fail(exc)

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

    def drop(self) -> None:
        """Forgets what has come and was not read."""
        self._chunks.clear()

    def fail(self, error: StreamFailedError) -> None:
        """Fails every pending and later call."""
        if not self.ended:
            self._failure = error
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
