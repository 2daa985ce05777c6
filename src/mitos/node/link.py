"""The guest link in motion: many streams over one machine's byte stream.

`wire/link.py` says what the bytes mean; this file moves them: it reads frames, hands data to the
stream it belongs to, returns credit as consumers take it, and holds the link still while a snapshot
is taken. `node/guest.py` builds the operations on top.

Ownership: a `Link` owns its byte stream and one reader task; `close` frees both. When the link
    breaks (the machine ended, or the guest sent what the document forbids) every open and later
    stream fails with `LinkLostError`, and `lost` is set; the sandbox's owner then gives the machine
    up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType

from mitos.engine.base import ByteStream
from mitos.wire.link import (
    DATA_LIMIT,
    INITIAL_CREDIT,
    VERSION,
    Channel,
    Control,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    LinkError,
    Operation,
    Status,
    Tag,
)

__all__ = ["Closed", "Link", "LinkLostError", "LinkStream"]

_log = logging.getLogger(__name__)

CANCEL_DEADLINE_S = 10.0
"""How long an agent may take to end a canceled stream before the link counts as lost."""

SILENCE_S = 30.0
"""With a stream open and nothing heard for so long, the agent is asked for a sign of life."""

PING_DEADLINE_S = 15.0
"""How long the answer to that question may take."""

_CREDIT_BATCH = DATA_LIMIT
"""Credit goes back in portions of this size: fewer frames, and the sender never runs dry."""


class LinkLostError(ConnectionError):
    """The link to an agent is gone; the machine cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a stream ended."""

    status: Status
    fields: Fields


class LinkStream:
    """One stream of a link, opened by this side. A context manager: leaving it cancels it."""

    def __init__(self, link: Link, stream_id: int) -> None:
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


class Link:
    """The server's end of one machine's link.

    Args:
        stream: the machine's bytes; owned by the link from now on.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._bytes = stream
        self._streams: dict[int, LinkStream] = {}
        self._next_id = 1
        self._write_lock = asyncio.Lock()
        self._hello: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._frozen: asyncio.Future[None] | None = None
        self._nonce = b""
        self._heard = asyncio.Event()
        self._still = 0
        self.lost = asyncio.Event()
        self._lost_error: LinkLostError | None = None
        self._tasks = [
            asyncio.create_task(self._read_frames(), name="link-reader"),
            asyncio.create_task(self._watch_silence(), name="link-watchdog"),
        ]

    async def close(self) -> None:
        """Fails what is open and frees the byte stream. Idempotent."""
        self._lose("the link was closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bytes.close()

    async def hello(self) -> Fields:
        """Waits for the agent's first frame after a cold boot.

        Raises:
            LinkLostError: the machine ended, or speaks another version.
        """
        fields = await asyncio.shield(self._hello)
        version = fields.get_uint(Tag.VERSION)
        if version != VERSION:
            self._lose(f"the agent speaks version {version} of the link, not {VERSION}")
            raise self._error()
        return fields

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Link]:
        """The link itself; a sandbox's own `session` also wakes it."""
        yield self

    async def open(self, operation: Operation, fields: Fields) -> LinkStream:
        """Opens a stream.

        Raises:
            LinkLostError: the link is gone.
        """
        async with self._write_lock:
            stream = LinkStream(self, self._take_id())
            self._streams[stream.id] = stream
            try:
                await self._write(Frame(FrameType.OPEN, stream.id, operation, fields.encode()))
            except BaseException:
                # The agent may have the OPEN already: end what it began, ignore what it sends.
                del self._streams[stream.id]
                with contextlib.suppress(LinkLostError):
                    await self._write(Frame(FrameType.CANCEL, stream.id))
                raise
        return stream

    async def send(self, frame: Frame) -> None:
        """Writes one frame, whole, waiting while the link is held still for a snapshot."""
        async with self._write_lock:
            await self._write(frame)

    async def _write(self, frame: Frame) -> None:
        if self._lost_error is not None:
            raise self._lost_error
        write = asyncio.ensure_future(self._bytes.write(frame.encode()))
        try:
            await asyncio.shield(write)
        except asyncio.CancelledError:
            # The frame must go out whole, or its successors would be read as its rest.
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(CANCEL_DEADLINE_S):
                    await write
            if not write.done() or write.cancelled():
                self._lose("a frame was cut short")
            raise
        except ConnectionError as exc:
            self._lose("the machine no longer reads")
            raise self._error() from exc

    @contextlib.asynccontextmanager
    async def still(self, deadline_s: float) -> AsyncIterator[None]:
        """Holds the link at a frame boundary: a snapshot must catch both codecs there.

        Raises:
            TimeoutError: the agent did not confirm in time; the link goes on as before.
            LinkLostError: the link is gone.
        """
        async with self._write_lock:
            self._nonce = secrets.token_bytes(8)
            self._frozen = asyncio.get_running_loop().create_future()
            self._still += 1
            try:
                await self._write(Frame(FrameType.FREEZE, payload=self._nonce))
                async with asyncio.timeout(deadline_s):
                    await self._frozen
                yield
            finally:
                self._still -= 1
                self._frozen = None
                if self._lost_error is None:
                    with contextlib.suppress(LinkLostError):
                        await self._write(Frame(FrameType.THAW))

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Silence is expected: the machine is paused."""
        self._still += 1
        try:
            yield
        finally:
            self._still -= 1
            self._heard.set()

    async def end_stream(self, stream: LinkStream) -> None:
        """Cancels a stream that still runs and waits for its end."""
        try:
            if not stream.ended:
                await self.send(Frame(FrameType.CANCEL, stream.id))
                async with asyncio.timeout(CANCEL_DEADLINE_S):
                    await stream.finish()
        except TimeoutError:
            self._lose("the agent did not end a canceled stream")
        except LinkLostError:
            pass
        finally:
            self._streams.pop(stream.id, None)

    def _take_id(self) -> int:
        while self._next_id in self._streams:
            self._next_id = (self._next_id + 2) % (1 << 32)
        stream_id = self._next_id
        self._next_id = (self._next_id + 2) % (1 << 32)
        return stream_id

    async def _read_frames(self) -> None:
        decoder = FrameDecoder()
        try:
            while data := await self._bytes.read():
                self._heard.set()
                for frame in decoder.feed(data):
                    self._dispatch(frame)
            self._lose("the machine ended")
        except LinkError as exc:
            _log.warning("guest broke the link protocol: %s", exc)
            self._lose(f"the guest broke the link protocol: {exc}")
        except OSError as exc:
            self._lose(f"reading the link failed: {exc}")

    def _dispatch(self, frame: Frame) -> None:
        if frame.stream != 0:
            # Frames for a stream that this side has forgotten crossed with its end.
            if stream := self._streams.get(frame.stream):
                stream.take(frame)
            return
        match frame.type:
            case FrameType.HELLO if not self._hello.done():
                self._hello.set_result(Fields.decode(frame.payload))
            case FrameType.FROZEN if frame.payload == self._nonce:
                if self._frozen is not None and not self._frozen.done():
                    self._frozen.set_result(None)
            case FrameType.PONG | FrameType.FROZEN:
                pass
            case _:
                raise LinkError(f"unexpected {frame.type.name} on stream 0")

    async def _watch_silence(self) -> None:
        """Notices an agent that stopped answering while somebody waits for it."""
        while True:
            try:
                self._heard.clear()
                async with asyncio.timeout(SILENCE_S):
                    await self._heard.wait()
            except TimeoutError:
                if self._streams and not self._still:
                    await self._ask_for_life()

    async def _ask_for_life(self) -> None:
        try:
            async with asyncio.timeout(PING_DEADLINE_S):
                await self.send(Frame(FrameType.PING, payload=secrets.token_bytes(8)))
                await self._heard.wait()
        except TimeoutError:
            if not self._still:
                self._lose(f"the agent did not answer for {SILENCE_S + PING_DEADLINE_S:.0f} s")
        except LinkLostError:
            pass

    def _lose(self, reason: str) -> None:
        if self._lost_error is not None:
            return
        error = self._lost_error = LinkLostError(reason)
        self.lost.set()
        for stream in self._streams.values():
            stream.lose(error)
        for future in (self._hello, self._frozen):
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # marks it retrieved: nobody may be waiting

    def _error(self) -> LinkLostError:
        assert self._lost_error is not None
        return self._lost_error
