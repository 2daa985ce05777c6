"""The guest link in motion: many streams over one machine's byte stream.

`wire/link.py` says what the bytes mean; this file moves them: it reads frames, hands each to the
stream it belongs to (`agent/stream.py`), and holds the link still while a snapshot is taken.
`agent/client.py` builds the operations on top.

Ownership: a `Link` owns its byte stream and its tasks; `close` frees them. When the link breaks
    (the machine ended, or the guest sent what the document forbids) every open and later stream
    fails with `LinkLostError`, and `lost` is set; the sandbox's owner then gives the machine up.
    When the agent does not answer (`agent/pulse.py`), what is open fails with `UnresponsiveError`,
    and so does what is opened until it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine, MutableMapping
from typing import Any
from weakref import WeakValueDictionary

from mitos.agent.outbox import Outbox
from mitos.agent.pulse import Pulse, Watched
from mitos.agent.stream import LinkLostError, LinkStream, StreamFailedError, UnresponsiveError
from mitos.agent.takeover import Takeover
from mitos.engine.base import ByteStream
from mitos.host.stopwatch import Stopwatch
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
"""How long whoever leaves a stream waits for the agent to end it."""

MAX_LEFT = 1000
"""Streams that nobody waits for and that an agent has yet to end, before its link is given up."""

_PATIENT = (Operation.ACCEPT, Operation.IDENTIFY)
"""Operations that wait for programs inside, and for a machine that is only just there."""


class Link:
    """The server's end of one machine's link.

    Args:
        stream: the machine's bytes; owned by the link from now on.
        machine: asked why its agent is silent; None: there is nothing to ask.
        token: of a machine that an earlier server had: nothing can be opened before `take_over`.
    """

    def __init__(
        self, stream: ByteStream, machine: Watched | None = None, *, token: str | None = None
    ) -> None:
        self.clock = Stopwatch()
        """Time in which the machine ran."""
        self.turns: MutableMapping[str, asyncio.Lock] = WeakValueDictionary()
        """Held by the streams of which the agent runs one after the other."""
        self._bytes = stream
        self._outbox = Outbox(stream)
        self._takeover = None if token is None else Takeover(stream, token)
        """Until the agent has answered a new server."""
        self._pulse = Pulse(self._ask_for_life, self._on_pulse, self._is_used, self.clock, machine)
        self._streams: dict[int, LinkStream] = {}
        self._left: set[int] = set()
        """Streams that nobody waits for any more and the agent has yet to end."""
        self._next_id = 1
        self._turn = asyncio.Lock()
        self._hello: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._frozen: asyncio.Future[None] | None = None
        self._nonce = b""
        self.lost = asyncio.Event()
        self.lost_error: LinkLostError | None = None
        """Why the link is gone; None while it is there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._read_frames(), "link-reader")
        self._start(self._write_frames(), "link-writer")
        self._start(self._pulse.watch(), "link-pulse")

    def take_over(self) -> None:
        """Goes on with the link of an earlier server; what is opened waits until it can.

        Preconditions: it has a token, and the machine is not paused: what is not read would be in
        every copy of it.
        """
        assert self._takeover is not None
        self._start(self._announce(self._takeover), "link-takeover")

    @property
    def is_responsive(self) -> bool:
        """False while its agent does not answer."""
        return self._pulse.responsive

    async def close(self) -> None:
        """Fails what is open and frees the byte stream. Idempotent."""
        self._lose(LinkLostError("the link was closed"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._bytes.close()

    async def hello(self) -> Fields:
        """Waits for the agent's first frame after a cold boot, or to a new server.

        Raises:
            LinkLostError: the machine ended, or speaks another version.
        """
        fields = await asyncio.shield(self._hello)
        version = fields.get_uint(Tag.VERSION)
        if version != VERSION:
            error = LinkLostError(f"the agent speaks version {version} of the link, not {VERSION}")
            self._lose(error)
            raise error
        return fields

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Link]:
        """The link itself; a sandbox's own `session` also wakes it."""
        yield self

    async def open(self, operation: Operation, fields: Fields) -> LinkStream:
        """Opens a stream.

        Raises:
            LinkLostError: the link is gone.
            UnresponsiveError: the agent does not answer.
        """
        async with self._turn:
            await self._room()
            stream = LinkStream(self, self._take_id(), is_patient=operation in _PATIENT)
            self._streams[stream.id] = stream
            self._put(Frame(FrameType.OPEN, stream.id, operation, fields.encode()))
        if not stream.is_patient:
            self._pulse.expect()
        return stream

    async def send(self, frame: Frame) -> None:
        """Sends one frame, waiting while the link is held still for a snapshot.

        Raises:
            LinkLostError: the link is gone.
            UnresponsiveError: the agent does not answer.
        """
        async with self._turn:
            await self._room()
            self._put(frame)

    @contextlib.asynccontextmanager
    async def frozen(self, deadline_s: float) -> AsyncIterator[None]:
        """Holds the link at a frame boundary: a snapshot must catch both codecs there.

        Raises:
            TimeoutError: the agent did not confirm in time; the link goes on as before.
            LinkLostError: the link is gone.
            UnresponsiveError: the agent does not answer.
        """
        async with self._turn:
            await self._room()
            self._nonce = secrets.token_bytes(8)
            self._frozen = asyncio.get_running_loop().create_future()
            self._put(Frame(FrameType.FREEZE, payload=self._nonce))
            self._pulse.expect()
            try:
                async with asyncio.timeout(deadline_s):
                    await self._frozen
                with self.clock.held():
                    yield
            finally:
                self._frozen = None
                with contextlib.suppress(LinkLostError):
                    self._put(Frame(FrameType.THAW))

    async def end_stream(self, stream: LinkStream) -> None:
        """Cancels a stream that still runs and waits for its end, though not for ever."""
        try:
            if stream.closed is None and self.lost_error is None:
                cancel = self._start(self._cancel(stream.id), "link-cancel")
                if not stream.ended:
                    async with asyncio.timeout(CANCEL_DEADLINE_S):
                        await asyncio.shield(cancel)
                        await stream.finish()
        except (TimeoutError, StreamFailedError):
            pass
        finally:
            # Its number is free again when the agent has ended it too.
            self._left.add(stream.id)
            stream.drop()
            if stream.closed is not None or self.lost_error is not None:
                self._forget(stream.id)
            elif len(self._left) > MAX_LEFT:
                reason = f"the agent does not end {MAX_LEFT} streams that nobody wants any more"
                self._lose(LinkLostError(reason, is_violated=True))

    async def _cancel(self, stream_id: int) -> None:
        # Goes out also while the agent is silent: what was given up ends when it answers again.
        with contextlib.suppress(LinkLostError):
            async with self._turn:
                self._put(Frame(FrameType.CANCEL, stream_id))

    async def _room(self) -> None:
        while True:
            if self.lost_error is not None:
                raise self.lost_error
            if not self._pulse.responsive:
                raise UnresponsiveError(self._pulse.stopped)
            if self._takeover is None and self._outbox.has_room:
                return
            await self._outbox.wait_for_room()

    def _put(self, frame: Frame) -> None:
        if self.lost_error is not None:
            raise self.lost_error
        self._outbox.put(frame.encode())

    def _forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        self._left.discard(stream_id)

    def _take_id(self) -> int:
        while self._next_id in self._streams:
            self._next_id = (self._next_id + 2) % (1 << 32)
        stream_id = self._next_id
        self._next_id = (self._next_id + 2) % (1 << 32)
        return stream_id

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _announce(self, takeover: Takeover) -> None:
        try:
            await takeover.announce()
            self._pulse.expect()
        except ConnectionError:
            self._lose(LinkLostError("the machine ended"))

    async def _write_frames(self) -> None:
        try:
            await self._outbox.run()
        except ConnectionError:
            self._lose(LinkLostError("the machine no longer reads"))

    async def _read_frames(self) -> None:
        decoder = FrameDecoder()
        try:
            while data := await self._bytes.read():
                if self._takeover is not None:
                    answer = self._takeover.find(data)
                    if answer is None:
                        continue
                    data, self._takeover = answer, None
                    self._outbox.wake()
                self._pulse.note()
                for frame in decoder.feed(data):
                    self._dispatch(frame)
            self._lose(LinkLostError("the machine ended"))
        except LinkError as exc:
            _log.warning("guest broke the link protocol: %s", exc)
            reason = f"the guest broke the link protocol: {exc}"
            self._lose(LinkLostError(reason, is_violated=True))
        except OSError as exc:
            self._lose(LinkLostError(f"reading the link failed: {exc}"))

    def _dispatch(self, frame: Frame) -> None:
        if frame.stream != 0:
            # Frames for a stream that this side has forgotten crossed with its end.
            if stream := self._streams.get(frame.stream):
                stream.take(frame)
                if stream.id in self._left:
                    stream.drop()
                    if stream.closed is not None:
                        self._forget(stream.id)
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

    def _ask_for_life(self) -> None:
        # Between FREEZE and THAW nothing may be sent; FROZEN is a sign of life as well, and so is
        # the answer to a new server.
        if self._frozen is None and self._takeover is None and self.lost_error is None:
            self._put(Frame(FrameType.PING, payload=secrets.token_bytes(8)))

    def _is_used(self) -> bool:
        return any(not stream.is_patient for stream in self._streams.values())

    def _on_pulse(self) -> None:
        self._outbox.wake()
        if self._pulse.responsive:
            _log.warning("an agent answers again")
            return
        _log.warning("an agent does not answer")
        error = UnresponsiveError(self._pulse.stopped)
        for stream in self._streams.values():
            if not stream.is_patient:
                stream.fail(error)
        _fail(self._frozen, error)

    def _lose(self, error: LinkLostError) -> None:
        if self.lost_error is not None:
            return
        self.lost_error = error
        self.lost.set()
        self._outbox.wake()
        for stream in self._streams.values():
            stream.fail(error)
        _fail(self._hello, error)
        _fail(self._frozen, error)


def _fail(future: asyncio.Future[Any] | None, error: StreamFailedError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
        future.exception()  # marks it retrieved: nobody may be waiting
