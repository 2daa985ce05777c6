"""The fake guest's agent: the other end of `spec/guest-link.md`, in memory."""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import posixpath
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mitos.engine.fake.filesystem import Entry, FileSystem
from mitos.engine.fake.kernel import Kernel
from mitos.engine.fake.pipe import PipeEnd
from mitos.engine.fake.shell import Shell, UnknownCommandError
from mitos.host.stopwatch import Stopwatch
from mitos.wire.link import (
    DATA_LIMIT,
    INITIAL_CREDIT,
    NONCE_SIZE,
    VERSION,
    Channel,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    LinkError,
    Operation,
    Status,
    Tag,
)

__all__ = ["FakeGuest", "GuestState"]

_EVENT = struct.Struct("!IB")
_LENGTH = struct.Struct("!I")


@dataclass
class GuestState:
    """All that a snapshot has of a guest."""

    files: FileSystem = field(default_factory=FileSystem)
    kernel: Kernel = field(default_factory=Kernel)
    environment: dict[str, str] = field(default_factory=dict)
    hostname: str = "sandbox"
    token: bytes = b""
    sandbox_id: str = ""

    def copy(self) -> GuestState:
        """An independent copy."""
        return GuestState(
            copy.deepcopy(self.files),
            self.kernel.copy(),
            dict(self.environment),
            self.hostname,
            self.token,
            self.sandbox_id,
        )


class _StreamEnded(Exception):  # noqa: N818  a signal, not an error
    """The stream is over: with this status and these fields."""

    def __init__(self, status: Status, fields: Fields) -> None:
        super().__init__(status.name)
        self.status = status
        self.fields = fields


class _Stream:
    """One stream the server opened."""

    def __init__(self, guest: FakeGuest, stream_id: int, fields: Fields) -> None:
        self._guest = guest
        self.id = stream_id
        self.fields = fields
        self.input = bytearray()
        self._input_ended = asyncio.Event()
        self._credit = INITIAL_CREDIT
        self._credited = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def take(self, frame: Frame) -> None:
        """Takes one frame of the server."""
        match frame.type:
            case FrameType.DATA:
                self.input += frame.payload
                size = len(frame.payload).to_bytes(4, "big")
                await self._guest.send(Frame(FrameType.CREDIT, self.id, 0, size))
            case FrameType.EOF:
                self._input_ended.set()
            case FrameType.CREDIT:
                self._credit += int.from_bytes(frame.payload, "big")
                self._credited.set()
            case FrameType.CANCEL if self.task is not None:
                self.task.cancel()

    async def whole_input(self) -> bytes:
        """All input, once it has ended."""
        await self._input_ended.wait()
        return bytes(self.input)

    async def output(self, data: bytes, channel: Channel = Channel.OUTPUT) -> None:
        """Sends output as credit allows."""
        while data:
            while not self._credit:
                self._credited.clear()
                await self._credited.wait()
            size = min(len(data), self._credit, DATA_LIMIT)
            self._credit -= size
            await self._guest.send(Frame(FrameType.DATA, self.id, channel, data[:size]))
            data = data[size:]


class FakeGuest:
    """Serves one machine's link until it is stopped or the server breaks the protocol.

    Args:
        state: what it starts with; owned by the guest.
        end: its end of the link.
        is_restored: it starts frozen, and says nothing until it is identified.
    """

    def __init__(self, state: GuestState, end: PipeEnd, *, is_restored: bool) -> None:
        self.state = state
        self.running = asyncio.Event()
        self.running.set()
        self.clock = Stopwatch()
        """Time in which it was not paused."""
        self._end = end
        self._is_restored = is_restored
        self._streams: dict[int, _Stream] = {}
        self._write_lock = asyncio.Lock()
        self.mute_identify = False
        self.clock_error_s = 0.0

    async def run(self) -> None:
        """Serves; returns when the link is closed or broken."""
        if not self._is_restored:
            await self.send(self._hello())
        decoder = FrameDecoder()
        try:
            while data := await self._end.read():
                if self.state.token and data.startswith(self.state.token):
                    decoder = FrameDecoder()
                    data = await self._start_over(data[len(self.state.token) :])
                for frame in decoder.feed(data):
                    await self.running.wait()
                    await self._dispatch(frame)
        except (LinkError, ConnectionError):
            pass
        finally:
            await self._forget_streams()

    async def send(self, frame: Frame) -> None:
        """Writes a frame; a paused guest waits."""
        await self.running.wait()
        async with self._write_lock:
            await self._end.write(frame.encode())

    def _hello(self) -> Frame:
        hello = Fields().uint(Tag.VERSION, VERSION).text(Tag.BUILD, "fake")
        if self.state.sandbox_id:
            hello.text(Tag.SANDBOX_ID, self.state.sandbox_id)
        return Frame(FrameType.HELLO, payload=hello.encode())

    async def _start_over(self, data: bytes) -> bytes:
        """Goes on with a new server; returns what came behind its first word."""
        await self.running.wait()
        await self._forget_streams()
        if self._write_lock.locked():
            self._write_lock.release()
        async with self._write_lock:
            await self._end.write(data[:NONCE_SIZE] + self._hello().encode())
        return data[NONCE_SIZE:]

    async def _dispatch(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.OPEN:
                self._open(frame)
            case FrameType.FREEZE:
                await self.send(Frame(FrameType.FROZEN, payload=frame.payload))
                await self._write_lock.acquire()
            case FrameType.THAW if self._write_lock.locked():
                self._write_lock.release()
            case FrameType.PING:
                await self.send(Frame(FrameType.PONG, payload=frame.payload))
            case _:
                if stream := self._streams.get(frame.stream):
                    await stream.take(frame)

    def _open(self, frame: Frame) -> None:
        stream = _Stream(self, frame.stream, Fields.decode(frame.payload))
        self._streams[stream.id] = stream
        stream.task = asyncio.create_task(self._serve(stream, frame.channel))

    async def _serve(self, stream: _Stream, operation: int) -> None:
        handler = self._handlers().get(operation)
        closing = Status.OK, Fields()
        try:
            if handler is None:
                raise _StreamEnded(Status.INVALID, Fields().text(Tag.MESSAGE, "unknown operation"))
            closing = Status.OK, await handler(stream)
        except _StreamEnded as ended:
            closing = ended.status, ended.fields
        except OSError as exc:
            number = exc.errno or errno.EIO
            fields = Fields().uint(Tag.ERRNO, number).text(Tag.MESSAGE, os.strerror(number))
            closing = Status.FAILED, fields
        except asyncio.CancelledError:
            closing = Status.CANCELED, Fields()
        if self._streams.pop(stream.id, None):
            await self.send(Frame(FrameType.CLOSE, stream.id, closing[0], closing[1].encode()))

    def _handlers(self) -> dict[int, Callable[[_Stream], Awaitable[Fields]]]:
        return {
            Operation.IDENTIFY: self._identify,
            Operation.EXEC: self._exec,
            Operation.READ_FILE: self._read_file,
            Operation.WRITE_FILE: self._write_file,
            Operation.LIST: self._list,
            Operation.STAT: self._stat,
            Operation.MKDIR: self._make_directory,
            Operation.REMOVE: self._remove,
            Operation.RUN_CODE: self._run_code,
            Operation.ACCEPT: self._accept,
        }

    async def _identify(self, stream: _Stream) -> Fields:
        if self.mute_identify:
            await asyncio.Event().wait()
        fields = stream.fields
        self.state.token = fields.get_text(Tag.TOKEN).encode()
        self.state.sandbox_id = fields.get_text(Tag.SANDBOX_ID)
        self.state.hostname = fields.get_text(Tag.HOSTNAME)
        machine_id = fields.get_text(Tag.MACHINE_ID) + "\n"
        self.state.files.write("/etc/machine-id", machine_id.encode())
        for variable in fields.get_texts(Tag.ENV):
            name, _, value = variable.partition("=")
            self.state.environment[name] = value
        generation = fields.get_raw(Tag.GENERATION) or b""
        now_ns = time.time_ns() + round(self.clock_error_s * 1e9)
        return Fields().raw(Tag.GENERATION, generation).uint(Tag.WALL_CLOCK, now_ns)

    async def _exec(self, stream: _Stream) -> Fields:
        fields, started = stream.fields, time.perf_counter_ns()
        variables = (text.partition("=") for text in fields.get_texts(Tag.ENV))
        environment = {**self.state.environment, **{name: value for name, _, value in variables}}
        shell = Shell(self.state.files, environment, self.state.hostname)
        timeout_ms = fields.get_uint(Tag.TIMEOUT)
        try:
            async with self.clock.timeout(timeout_ms / 1000 if timeout_ms else None):
                stdin = await stream.whole_input() if fields.get_uint(Tag.STDIN) else b""
                outcome = await shell.run(
                    fields.get_texts(Tag.ARG), stdin, fields.get_text(Tag.CWD)
                )
        except UnknownCommandError as exc:
            raise FileNotFoundError(errno.ENOENT, "no such program", str(exc)) from exc
        except TimeoutError:
            spent = time.perf_counter_ns() - started
            return Fields().uint(Tag.TIMED_OUT, 1).uint(Tag.DURATION, spent)
        await stream.output(outcome.stdout)
        await stream.output(outcome.stderr, Channel.ERROR)
        closing = Fields().uint(Tag.DURATION, time.perf_counter_ns() - started)
        if outcome.signal:
            return closing.uint(Tag.SIGNAL, outcome.signal)
        return closing.uint(Tag.EXIT_CODE, outcome.exit_code)

    async def _read_file(self, stream: _Stream) -> Fields:
        content = self.state.files.read(stream.fields.get_text(Tag.PATH))
        rest = content[stream.fields.get_uint(Tag.OFFSET) :]
        await stream.output(rest)
        return Fields().uint(Tag.SIZE, len(rest))

    async def _write_file(self, stream: _Stream) -> Fields:
        path, mode = stream.fields.get_text(Tag.PATH), stream.fields.get_uint(Tag.MODE)
        content = await stream.whole_input()
        self.state.files.write(path, content, mode)
        return Fields().uint(Tag.SIZE, len(content))

    async def _list(self, stream: _Stream) -> Fields:
        for path, entry in self.state.files.list(stream.fields.get_text(Tag.PATH)):
            record = _record(path, entry).encode()
            await stream.output(_LENGTH.pack(len(record)) + record)
        return Fields()

    async def _stat(self, stream: _Stream) -> Fields:
        path = stream.fields.get_text(Tag.PATH)
        return _record(self.state.files.resolve(path), self.state.files.stat(path))

    async def _make_directory(self, stream: _Stream) -> Fields:
        self.state.files.make_directory(stream.fields.get_text(Tag.PATH))
        return Fields()

    async def _remove(self, stream: _Stream) -> Fields:
        recursive = bool(stream.fields.get_uint(Tag.RECURSIVE))
        self.state.files.remove(stream.fields.get_text(Tag.PATH), recursive=recursive)
        return Fields()

    async def _accept(self, stream: _Stream) -> Fields:  # noqa: ARG002  an operation's signature
        """No program in a fake machine ever connects."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def _run_code(self, stream: _Stream) -> Fields:
        if stream.fields.get_text(Tag.LANGUAGE) != "python":
            message = "there is no kernel for that language"
            raise _StreamEnded(Status.UNAVAILABLE, Fields().text(Tag.MESSAGE, message))
        code = (await stream.whole_input()).decode("utf-8", "replace")
        timeout_ms = stream.fields.get_uint(Tag.TIMEOUT)
        timeout_s = timeout_ms / 1000 if timeout_ms else None
        events = await asyncio.to_thread(self.state.kernel.run, code, timeout_s)
        for event in events:
            await stream.output(_EVENT.pack(len(event.payload), event.kind) + event.payload)
        return Fields().uint(Tag.EXIT_CODE, events[-1].payload[0])

    async def _forget_streams(self) -> None:
        tasks = [stream.task for stream in self._streams.values() if stream.task]
        self._streams.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _record(path: str, entry: Entry) -> Fields:
    return (
        Fields()
        .text(Tag.NAME, posixpath.basename(path))
        .text(Tag.PATH, path)
        .uint(Tag.MODE, entry.mode)
        .uint(Tag.SIZE, len(entry.content))
        .uint(Tag.MTIME, entry.modified_at)
    )
