"""The guest link in motion: many streams over one machine's byte stream.

`wire/link.py` says what the bytes mean; this file moves them: it reads frames, hands each to the
stream it belongs to (`agent/stream.py`), and holds the link still while a snapshot is taken.
`agent/client.py` builds the operations on top.

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
from collections.abc import AsyncIterator, Iterator

from mitos.agent.stream import LinkLostError, LinkStream
from mitos.engine.base import ByteStream
from mitos.wire.link import (
    VERSION,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    LinkError,
    Operation,
    Tag,
)

__all__ = ["Link"]

_log = logging.getLogger(__name__)

CANCEL_DEADLINE_S = 10.0
"""How long an agent may take to end a canceled stream before the link counts as lost."""

SILENCE_S = 30.0
"""With a stream open and nothing heard for so long, the agent is asked for a sign of life."""

PING_DEADLINE_S = 15.0
"""How long the answer to that question may take."""


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
        self._silences = 0
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
    async def frozen(self, deadline_s: float) -> AsyncIterator[None]:
        """Holds the link at a frame boundary: a snapshot must catch both codecs there.

        Raises:
            TimeoutError: the agent did not confirm in time; the link goes on as before.
            LinkLostError: the link is gone.
        """
        async with self._write_lock:
            self._nonce = secrets.token_bytes(8)
            self._frozen = asyncio.get_running_loop().create_future()
            self._silences += 1
            try:
                await self._write(Frame(FrameType.FREEZE, payload=self._nonce))
                async with asyncio.timeout(deadline_s):
                    await self._frozen
                yield
            finally:
                self._silences -= 1
                self._frozen = None
                if self._lost_error is None:
                    with contextlib.suppress(LinkLostError):
                        await self._write(Frame(FrameType.THAW))

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Silence is expected: the machine is paused."""
        self._silences += 1
        try:
            yield
        finally:
            self._silences -= 1
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
                if self._streams and not self._silences:
                    await self._ask_for_life()

    async def _ask_for_life(self) -> None:
        try:
            async with asyncio.timeout(PING_DEADLINE_S):
                await self.send(Frame(FrameType.PING, payload=secrets.token_bytes(8)))
                await self._heard.wait()
        except TimeoutError:
            if not self._silences:
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
