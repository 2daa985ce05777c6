"""The fake guest's agent: the link of one machine, its streams, and its standing still.

`operation` does what a stream asks for. The agent ends, as a real one exits, when the server breaks
the protocol of `spec/guest-link.md` or closes the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from mitos.engine.fake import operation
from mitos.engine.fake.kernel import Kernel
from mitos.engine.fake.persist import SavedGuest
from mitos.engine.fake.pipe import PipeEnd
from mitos.engine.fake.shell import Shell
from mitos.engine.fake.stream import Stream, StreamEnd
from mitos.wire.link import (
    VERSION,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    LinkError,
    Operation,
    Status,
    Tag,
)

__all__ = ["Guest"]

STREAM_LIMIT = 256

_log = logging.getLogger(__name__)


class Guest:
    """One machine's inside.

    Args:
        saved: what it starts with; owned by the guest.
        end: its end of the link.
        is_restored: it starts frozen and says nothing until it is identified.
    """

    def __init__(self, saved: SavedGuest, end: PipeEnd, *, is_restored: bool) -> None:
        self.files = saved.files
        self.environment = saved.environment
        self.kernel = Kernel(saved.files, saved.environment, saved=saved.namespace)
        self.shell = Shell(saved.files, may_run=self._may_run, spawn=self._spawn)
        self.mutes_identify = False
        self._saved_processes = saved.processes
        self._end = end
        self._is_restored = is_restored
        self._streams: dict[int, Stream] = {}
        self._tasks = asyncio.TaskGroup()
        self._write_lock = asyncio.Lock()
        self._running = _set_event()
        self._thawed = asyncio.Event() if is_restored else _set_event()
        self._pause = contextlib.AsyncExitStack()

    async def run(self) -> None:
        """Serves until the link is closed or broken."""
        try:
            async with self._tasks:
                for process in self._saved_processes:
                    self.shell.start(process)
                await self._serve_link()
                raise _Ended
        except* _Ended:
            pass
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Unblocks whatever waits and closes the link; `run` ends soon after. Idempotent."""
        self.kernel.stop()
        await self._end.close()
        self._thawed.set()
        await self.resume()

    async def _serve_link(self) -> None:
        decoder = FrameDecoder()
        try:
            if not self._is_restored:
                hello = Fields().uint(Tag.VERSION, VERSION).text(Tag.BUILD, "fake")
                await self.send(Frame(FrameType.HELLO, payload=hello.encode()))
            while data := await self._end.read():
                for frame in decoder.feed(data):
                    await self._may_run()
                    await self._dispatch(frame)
        except LinkError as exc:
            _log.info("the fake agent ends: %s", exc)
        except ConnectionError:
            pass

    async def pause(self) -> None:
        """Stops everything in it. Idempotent.

        Raises:
            TimeoutError: a cell cannot be stopped; everything goes on.
        """
        if self._running.is_set():
            await self._pause.enter_async_context(self.kernel.standing_still())
            self._running.clear()

    async def resume(self) -> None:
        """Undoes `pause`. Idempotent."""
        self._running.set()
        await self._pause.aclose()

    @contextlib.asynccontextmanager
    async def saved(self) -> AsyncIterator[SavedGuest]:
        """Its state, which nothing changes until the block first waits.

        Raises:
            TimeoutError: a cell cannot be stopped.
        """
        async with self.kernel.standing_still():
            yield SavedGuest(self.files, self.environment, self.kernel.dump(), self.shell.processes)

    async def send(self, frame: Frame) -> None:
        """Writes a frame, unless the guest is frozen or paused: then it waits."""
        while True:
            await self._thawed.wait()
            await self._running.wait()
            async with self._write_lock:
                if self._thawed.is_set() and self._running.is_set():
                    await self._end.write(frame.encode())
                    return

    def forget_streams(self, *, but: Stream) -> None:
        """Drops every other stream, as after a fork: commands go on, all else ends."""
        for stream in [stream for stream in self._streams.values() if stream is not but]:
            stream.forget()
            del self._streams[stream.id]
            if stream.task is not None and not stream.is_command:
                stream.task.cancel()

    async def _dispatch(self, frame: Frame) -> None:
        if not self._thawed.is_set() and frame.type is not FrameType.THAW:
            if not _is_forked_identity(frame):
                raise LinkError("a frame while frozen")
            self._thawed.set()
        match frame.type:
            case FrameType.OPEN:
                await self._open(frame)
            case FrameType.FREEZE:
                async with self._write_lock:
                    await self._end.write(Frame(FrameType.FROZEN, payload=frame.payload).encode())
                    self._thawed.clear()
            case FrameType.THAW:
                self._thawed.set()
            case FrameType.PING:
                await self.send(Frame(FrameType.PONG, payload=frame.payload))
            case FrameType.HELLO | FrameType.FROZEN | FrameType.PONG | FrameType.CLOSE:
                raise LinkError(f"{frame.type.name} from the server")
            case _:
                if stream := self._streams.get(frame.stream):
                    stream.take(frame)

    async def _open(self, frame: Frame) -> None:
        if frame.stream % 2 == 0 or frame.stream in self._streams:
            raise LinkError("the server opened a stream that it cannot open")
        try:
            fields, refusal = Fields.decode(frame.payload), ""
        except LinkError as exc:
            fields, refusal = Fields(), str(exc)
        stream = Stream(frame.stream, fields, self.send)
        if refusal or frame.channel not in list(Operation):
            message = Fields().text(Tag.MESSAGE, refusal or "unknown operation")
            await stream.send(FrameType.CLOSE, Status.INVALID, message.encode())
        elif len(self._streams) >= STREAM_LIMIT:
            message = Fields().text(Tag.MESSAGE, "too many streams are open")
            await stream.send(FrameType.CLOSE, Status.UNAVAILABLE, message.encode())
        else:
            self._streams[stream.id] = stream
            serving = self._serve(stream, Operation(frame.channel))
            stream.task = self._tasks.create_task(serving, name=f"fake-stream-{stream.id}")

    async def _serve(self, stream: Stream, asked: Operation) -> None:
        status, fields = await self._outcome(stream, asked)
        if self._streams.get(stream.id) is stream:
            with contextlib.suppress(ConnectionError):
                await stream.send(FrameType.CLOSE, status, fields.encode())
            del self._streams[stream.id]

    async def _outcome(self, stream: Stream, asked: Operation) -> tuple[Status, Fields]:
        try:
            return Status.OK, await operation.serve(self, stream, asked)
        except StreamEnd as end:
            return end.status, end.fields
        except LinkError as exc:
            return Status.INVALID, Fields().text(Tag.MESSAGE, str(exc))
        except OSError as exc:
            return Status.FAILED, _failure(exc)
        except asyncio.CancelledError:
            if not stream.is_canceled:
                raise
            return Status.CANCELED, Fields()
        except Exception:  # noqa: BLE001  a bug of the fake must not end the machine
            _log.exception("the fake agent failed at %s", asked.name)
            return Status.FAILED, _failure(OSError(errno.EIO, os.strerror(errno.EIO)))

    async def _may_run(self) -> None:
        await self._running.wait()

    def _spawn(self, work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        return self._tasks.create_task(work)


class _Ended(Exception):  # noqa: N818  makes the task group end its tasks
    """The link is over."""


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _is_forked_identity(frame: Frame) -> bool:
    if frame.type is not FrameType.OPEN or frame.channel != Operation.IDENTIFY:
        return False
    return Fields.decode(frame.payload).get_uint(Tag.FORKED) == 1


def _failure(exc: OSError) -> Fields:
    number = exc.errno or errno.EIO
    name = exc.filename if isinstance(exc.filename, str) else ""
    message = f"{name}: {os.strerror(number)}" if name else os.strerror(number)
    return Fields().uint(Tag.ERRNO, number).text(Tag.MESSAGE, message)
