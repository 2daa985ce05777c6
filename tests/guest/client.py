"""A client of one agent over two descriptors: blocking, with a deadline on every wait."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mitos.wire.link import (
    DATA_LIMIT,
    INITIAL_CREDIT,
    Channel,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    KernelEvent,
    KernelEventDecoder,
    Operation,
    Status,
    Tag,
)

DEADLINE_S = 15.0


@dataclass(slots=True)
class Stream:
    """What has come in on one stream."""

    id: int
    outputs: dict[int, bytearray] = field(
        default_factory=lambda: {0: bytearray(), 1: bytearray(), 2: bytearray()}
    )
    send_credit: int = INITIAL_CREDIT
    owed: int = 0
    output_ended: bool = False
    status: Status | None = None
    fields: Fields = field(default_factory=Fields)

    @property
    def closed(self) -> bool:
        return self.status is not None

    @property
    def stdout(self) -> bytes:
        return bytes(self.outputs[Channel.OUTPUT])

    @property
    def stderr(self) -> bytes:
        return bytes(self.outputs[Channel.ERROR])

    @property
    def events(self) -> list[KernelEvent]:
        return list(KernelEventDecoder().feed(self.stdout))


class AgentGoneError(Exception):
    """The agent closed its output."""


class AgentClient:
    """Speaks the guest link. `write_to` and `read_from` stay the caller's."""

    def __init__(self, write_to: int, read_from: int) -> None:
        self._write_to = write_to
        self._read_from = read_from
        self._decoder = FrameDecoder()
        self._next_id = 1
        self.streams: dict[int, Stream] = {}
        self.link_frames: list[Frame] = []
        self.gives_credit = True

    # ---- frames ----

    def send(self, frame: Frame) -> None:
        self.send_bytes(frame.encode())

    def send_bytes(self, data: bytes) -> None:
        deadline = time.monotonic() + DEADLINE_S
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._write_to], [], deadline - time.monotonic())
            if not writable:
                raise TimeoutError("the agent takes no bytes")
            view = view[os.write(self._write_to, view[:4096]) :]

    def receive(self, timeout_s: float) -> bool:
        """Handles what comes within the time; False when nothing came."""
        readable, _, _ = select.select([self._read_from], [], [], max(0, timeout_s))
        if not readable:
            return False
        data = os.read(self._read_from, 1 << 18)
        if not data:
            raise AgentGoneError
        for frame in self._decoder.feed(data):
            self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        if frame.stream == 0:
            self.link_frames.append(frame)
            return
        stream = self.streams[frame.stream]
        assert not stream.closed, f"a frame after CLOSE: {frame}"
        if frame.type is FrameType.DATA:
            stream.outputs[frame.channel] += frame.payload
            stream.owed += len(frame.payload)
            assert stream.owed <= INITIAL_CREDIT
            if self.gives_credit and stream.owed >= INITIAL_CREDIT // 4:
                self.give_credit(stream)
        elif frame.type is FrameType.EOF:
            assert frame.channel == Channel.OUTPUT
            stream.output_ended = True
        elif frame.type is FrameType.CREDIT:
            stream.send_credit += int.from_bytes(frame.payload, "big")
        elif frame.type is FrameType.CLOSE:
            stream.status = Status(frame.channel)
            stream.fields = Fields.decode(frame.payload)
        else:
            raise AssertionError(f"unexpected frame {frame}")

    def give_credit(self, stream: Stream) -> None:
        self.send(Frame(FrameType.CREDIT, stream.id, 0, stream.owed.to_bytes(4, "big")))
        stream.owed = 0

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.receive(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise TimeoutError("the agent did not say what was waited for")

    def link_frame(self, frame_type: FrameType) -> Frame:
        """Waits for a frame of stream 0 and takes it off the list."""
        self.wait_until(lambda: any(frame.type is frame_type for frame in self.link_frames))
        frame = next(frame for frame in self.link_frames if frame.type is frame_type)
        self.link_frames.remove(frame)
        return frame

    # ---- streams ----

    def open(self, operation: Operation | int, fields: Fields | None = None) -> Stream:
        stream = Stream(self._next_id)
        self._next_id += 2
        self.streams[stream.id] = stream
        payload = (fields or Fields()).encode()
        self.send(Frame(FrameType.OPEN, stream.id, int(operation), payload))
        return stream

    def write(self, stream: Stream, data: bytes, *, timeout_s: float = DEADLINE_S) -> None:
        """Sends input as the credit allows."""
        view = memoryview(data)
        while view and not stream.closed:
            size = min(len(view), stream.send_credit, DATA_LIMIT)
            if size == 0:
                self.wait_until(lambda: stream.closed or stream.send_credit > 0, timeout_s)
                continue
            self.send(Frame(FrameType.DATA, stream.id, 0, bytes(view[:size])))
            stream.send_credit -= size
            view = view[size:]
            self.receive(0)

    def end_input(self, stream: Stream) -> None:
        if not stream.closed:
            self.send(Frame(FrameType.EOF, stream.id, 0))

    def cancel(self, stream: Stream) -> None:
        self.send(Frame(FrameType.CANCEL, stream.id, 0))

    def finish(self, stream: Stream, timeout_s: float = DEADLINE_S) -> Stream:
        self.wait_until(lambda: stream.closed, timeout_s)
        return stream

    def call(
        self, operation: Operation | int, fields: Fields | None = None, data: bytes | None = None
    ) -> Stream:
        """Opens a stream, sends the input if there is one, and waits for the end."""
        stream = self.open(operation, fields)
        if data is not None:
            self.write(stream, data)
            self.end_input(stream)
        return self.finish(stream)

    # ---- operations ----

    def exec(self, *argv: str, stdin: bytes | None = None, **options: object) -> Stream:
        return self.call(
            Operation.EXEC, exec_fields(argv, stdin=stdin is not None, **options), stdin
        )

    def shell(self, script: str, **options: object) -> Stream:
        return self.exec("/bin/sh", "-c", script, **options)

    def start_shell(self, script: str, **options: object) -> Stream:
        return self.open(Operation.EXEC, exec_fields(("/bin/sh", "-c", script), **options))

    def read_file(self, path: str, *, offset: int = 0, size: int = 0) -> Stream:
        fields = Fields().text(Tag.PATH, path).uint(Tag.OFFSET, offset).uint(Tag.SIZE, size)
        return self.call(Operation.READ_FILE, fields)

    def write_file(self, path: str, data: bytes, *, mode: int = 0) -> Stream:
        fields = Fields().text(Tag.PATH, path).uint(Tag.MODE, mode)
        return self.call(Operation.WRITE_FILE, fields, data)

    def on_path(self, operation: Operation, path: str, **numbers: int) -> Stream:
        fields = Fields().text(Tag.PATH, path)
        for name, number in numbers.items():
            fields.uint(Tag[name.upper()], number)
        return self.call(operation, fields)

    def run_code(self, code: str, *, timeout_ms: int = 0, language: str = "python") -> Stream:
        return self.finish(self.start_code(code, timeout_ms=timeout_ms, language=language))

    def start_code(self, code: str, *, timeout_ms: int = 0, language: str = "python") -> Stream:
        fields = Fields().text(Tag.LANGUAGE, language).uint(Tag.TIMEOUT, timeout_ms)
        stream = self.open(Operation.RUN_CODE, fields)
        self.write(stream, code.encode())
        self.end_input(stream)
        return stream

    def identify(self, fields: Fields | None = None, *, forked: bool = False) -> Stream:
        return self.call(Operation.IDENTIFY, fields or identity_fields(forked=forked))

    def freeze(self) -> None:
        """Freezes the agent; until `thaw` nothing may be sent, credit included."""
        nonce = os.urandom(8)
        self.gives_credit = False
        self.send(Frame(FrameType.FREEZE, payload=nonce))
        assert self.link_frame(FrameType.FROZEN).payload == nonce

    def thaw(self) -> None:
        self.send(Frame(FrameType.THAW))
        self.gives_credit = True
        for stream in self.streams.values():
            if not stream.closed:
                self.give_credit(stream)

    def restored_child(self) -> AgentClient:
        """What the server sees of a restored child: a frozen agent, and no stream."""
        self.freeze()
        return AgentClient(self._write_to, self._read_from)

    def new_server(self, token: bytes = b"secret", *, before: bytes = b"") -> AgentClient:
        """Takes the link over as a server does that knows nothing of what went before.

        Args:
            token: that the agent was told.
            before: comes in one piece with the first word.
        """
        later, nonce, received = AgentClient(self._write_to, self._read_from), os.urandom(32), b""
        is_told, deadline = False, time.monotonic() + DEADLINE_S
        while nonce not in received:
            assert time.monotonic() < deadline, "the agent does not answer a new server"
            if not is_told and unread_bytes(self._write_to) == 0:
                os.write(self._write_to, before + token + nonce)
                is_told = True
            if select.select([self._read_from], [], [], 0.01)[0]:
                received += os.read(self._read_from, 1 << 18)
        for frame in later._decoder.feed(received.partition(nonce)[2]):
            later._take(frame)
        return later

    def descriptor_count(self) -> int:
        """How many descriptors the agent has open."""
        return len(self.shell("ls /proc/1/fd").stdout.split())

    def ping(self) -> None:
        nonce = os.urandom(8)
        self.send(Frame(FrameType.PING, payload=nonce))
        assert self.link_frame(FrameType.PONG).payload == nonce


def unread_bytes(pipe: int) -> int:
    """What was written to a pipe and not read yet."""
    left = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(left, sys.byteorder)


def exec_fields(
    argv: Iterable[str],
    *,
    stdin: bool = False,
    env: dict[str, str] | None = None,
    cwd: str = "",
    timeout_ms: int = 0,
    term: str = "",
    size: tuple[int, int] = (80, 24),
) -> Fields:
    fields = Fields().texts(Tag.ARG, argv).uint(Tag.STDIN, int(stdin)).uint(Tag.TIMEOUT, timeout_ms)
    fields.texts(Tag.ENV, (f"{name}={value}" for name, value in (env or {}).items()))
    if cwd:
        fields.text(Tag.CWD, cwd)
    if term:
        fields.text(Tag.TERM, term).uint(Tag.COLS, size[0]).uint(Tag.ROWS, size[1])
    return fields


def identity_fields(
    *, forked: bool = False, hostname: str = "box", env: dict[str, str] | None = None
) -> Fields:
    fields = Fields().text(Tag.SANDBOX_ID, "sb").raw(Tag.GENERATION, os.urandom(16))
    fields.raw(Tag.ENTROPY, os.urandom(64)).uint(Tag.WALL_CLOCK, time.time_ns())
    fields.text(Tag.HOSTNAME, hostname).text(Tag.MACHINE_ID, os.urandom(16).hex())
    fields.text(Tag.TOKEN, "secret").uint(Tag.FORKED, int(forked))
    return fields.texts(Tag.ENV, (f"{name}={value}" for name, value in (env or {}).items()))
