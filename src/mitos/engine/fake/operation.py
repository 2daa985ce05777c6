"""What the streams of the link ask of the fake guest: section 3 of `spec/guest-link.md`."""

from __future__ import annotations

import asyncio
import errno
import posixpath
import signal
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from mitos.engine.fake.filesystem import Entry, fail
from mitos.engine.fake.process import (
    NullSource,
    Process,
    Sink,
    Source,
    Streams,
    StreamSink,
    StreamSource,
)
from mitos.engine.fake.shell import Job, script_of
from mitos.engine.fake.stream import Stream, StreamEnd
from mitos.engine.fake.terminal import Terminal
from mitos.wire.link import (
    Channel,
    Control,
    Fields,
    KernelEvent,
    LinkError,
    Operation,
    Status,
    Tag,
)

if TYPE_CHECKING:
    from mitos.engine.fake.guest import Guest

__all__ = ["serve"]

CODE_LIMIT_BYTES = 32 << 20
_EVENT = struct.Struct("!IB")
_LENGTH = struct.Struct("!I")
_ON_PATHS = range(Operation.READ_FILE, Operation.REMOVE + 1)
_HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


async def serve(guest: Guest, stream: Stream, asked: Operation) -> Fields:
    """Does what a stream asks for.

    Returns:
        The fields of its `CLOSE`.

    Raises:
        StreamEnd: with another status than `OK`.
        LinkError: the request breaks the document.
        OSError: what a kernel would say.
    """
    for tag, value in stream.fields.items:
        if tag in (Tag.PATH, Tag.ARG, Tag.ENV, Tag.CWD) and b"\0" in value:
            raise LinkError("a path, argument or variable holds a NUL byte")
    if asked in _ON_PATHS and not stream.fields.get_raw(Tag.PATH):
        raise LinkError("an operation on a path without a path")
    return await _HANDLERS[asked](guest, stream)


async def _identify(guest: Guest, stream: Stream) -> Fields:
    fields = stream.fields
    if guest.mutes_identify:
        await asyncio.Event().wait()
    if fields.get_uint(Tag.FORKED):
        guest.forget_streams(but=stream)
    for variable in fields.get_texts(Tag.ENV):
        name, _, value = variable.partition("=")
        guest.environment[name] = value
    for path, tag in (("/etc/hostname", Tag.HOSTNAME), ("/etc/machine-id", Tag.MACHINE_ID)):
        if value := fields.get_text(tag):
            guest.files.write(path, value.encode() + b"\n")
    generation = fields.get_raw(Tag.GENERATION) or b""
    if len(generation) != 16 or not 32 <= len(fields.get_raw(Tag.ENTROPY) or b"") <= 256:
        raise LinkError("an identity without generation or entropy")
    return Fields().raw(Tag.GENERATION, generation).uint(Tag.WALL_CLOCK, time.time_ns())


async def _exec(guest: Guest, stream: Stream) -> Fields:
    fields, started_ns = stream.fields, time.monotonic_ns()
    process = _process(guest, stream)
    siblings, timeout_ms = list[Job](), fields.get_uint(Tag.TIMEOUT)
    stream.is_command = True
    job = guest.shell.start(process, siblings)
    stream.on_control = _controller(process, siblings)
    closing = Fields()
    try:
        async with asyncio.timeout(timeout_ms / 1000 if timeout_ms else None):
            await asyncio.wait({job.task})
            while held := [other.task for other in siblings if _holds(other, process.streams)]:
                await asyncio.wait(held)
    except TimeoutError:
        closing.uint(Tag.TIMED_OUT, 1)
    else:
        if job.signal_number:
            closing.uint(Tag.SIGNAL, job.signal_number)
        else:
            closing.uint(Tag.EXIT_CODE, job.task.result())
    finally:
        # At its end a command leaves its background jobs; cut short, it takes them along.
        if closing.get_raw(Tag.TIMED_OUT) is not None or not closing.items:
            for each in siblings:
                each.kill(signal.SIGKILL)
    return closing.uint(Tag.DURATION, time.monotonic_ns() - started_ns)


def _process(guest: Guest, stream: Stream) -> Process:
    argv, cwd = stream.fields.get_texts(Tag.ARG), stream.fields.get_text(Tag.CWD) or "/workspace"
    if not argv:
        raise LinkError("a command without arguments")
    if not guest.files.stat(cwd, follow=True).is_directory:
        raise fail(errno.ENOTDIR, cwd)
    if not argv[0] or not guest.shell.finds(argv[0]):
        raise fail(errno.ENOENT, argv[0])
    variables = dict(guest.environment)
    for variable in stream.fields.get_texts(Tag.ENV):
        name, _, value = variable.partition("=")
        variables[name] = value
    terminal = _terminal(stream)
    if terminal is not None:
        variables["TERM"] = stream.fields.get_text(Tag.TERM)
    return Process(
        pid=guest.shell.next_pid(),
        variables=variables,
        exported=set(variables),
        cwd=guest.files.locate(cwd),
        streams=_streams(stream, terminal),
        rest=script_of(argv),
        terminal=terminal,
    )


def _terminal(stream: Stream) -> Terminal | None:
    if stream.fields.get_raw(Tag.TERM) is None:
        return None
    size = stream.fields.get_uint(Tag.COLS, 80), stream.fields.get_uint(Tag.ROWS, 24)
    return Terminal(stream.read, stream.write, size=size)


def _streams(stream: Stream, terminal: Terminal | None) -> Streams:
    if terminal is not None:
        output: Sink = StreamSink(terminal.write)
        return Streams(StreamSource(terminal.read), output, output)

    async def write_error(data: bytes) -> None:
        await stream.write(data, Channel.ERROR)

    has_input = bool(stream.fields.get_uint(Tag.STDIN))
    source: Source = StreamSource(stream.read) if has_input else NullSource()
    return Streams(source, StreamSink(stream.write), StreamSink(write_error))


def _controller(process: Process, siblings: list[Job]) -> Callable[[Control, Fields], None]:
    def control(code: Control, fields: Fields) -> None:
        if code is Control.RESIZE and process.terminal is not None:
            process.terminal.size = fields.get_uint(Tag.COLS), fields.get_uint(Tag.ROWS)
        number = fields.get_uint(Tag.SIGNAL)
        if code is Control.SIGNAL and number and number not in _HARMLESS:
            for job in siblings:
                job.kill(number)

    def interrupt() -> None:
        control(Control.SIGNAL, Fields().uint(Tag.SIGNAL, signal.SIGINT))

    if process.terminal is not None:
        process.terminal.on_interrupt = interrupt
    return control


def _holds(job: Job, streams: Streams) -> bool:
    """True when a job is alive and has the command's output open."""
    ends = (job.process.stdout, job.process.stderr)
    return not job.task.done() and any(end in (streams.stdout, streams.stderr) for end in ends)


async def _read_file(guest: Guest, stream: Stream) -> Fields:
    fields, sent = stream.fields, 0
    skip, left = fields.get_uint(Tag.OFFSET), fields.get_uint(Tag.SIZE) or None
    for piece in guest.files.read(fields.get_text(Tag.PATH)):
        wanted = piece[skip:] if left is None else piece[skip:][:left]
        skip = max(0, skip - len(piece))
        await stream.write(wanted)
        await asyncio.sleep(0)
        sent += len(wanted)
        left = None if left is None else left - len(wanted)
        if left == 0:
            break
    return Fields().uint(Tag.SIZE, sent)


async def _write_file(guest: Guest, stream: Stream) -> Fields:
    path, mode = stream.fields.get_text(Tag.PATH), stream.fields.get_uint(Tag.MODE) & 0o7777
    guest.files.make_directory(posixpath.dirname(posixpath.join("/workspace", path)))
    if guest.files.exists(path) and guest.files.stat(path, follow=True).is_directory:
        raise fail(errno.EISDIR, path)
    content = bytearray()
    while chunk := await stream.read():
        content += chunk
        if len(content) > guest.files.limit_bytes:
            raise fail(errno.ENOSPC, path)
    if not stream.is_forgotten:
        guest.files.write(path, bytes(content), mode=mode)
    return Fields().uint(Tag.SIZE, len(content))


async def _list(guest: Guest, stream: Stream) -> Fields:
    for path, entry in guest.files.entries(stream.fields.get_text(Tag.PATH)):
        record = _record(path, entry).encode()
        await stream.write(_LENGTH.pack(len(record)) + record)
    return Fields()


async def _stat(guest: Guest, stream: Stream) -> Fields:
    path = stream.fields.get_text(Tag.PATH)
    return _record(guest.files.locate(path, follow=False), guest.files.stat(path))


async def _make_directory(guest: Guest, stream: Stream) -> Fields:
    mode = stream.fields.get_uint(Tag.MODE) & 0o7777
    guest.files.make_directory(stream.fields.get_text(Tag.PATH), mode=mode)
    return Fields()


async def _remove(guest: Guest, stream: Stream) -> Fields:
    is_recursive = bool(stream.fields.get_uint(Tag.RECURSIVE))
    guest.files.remove(stream.fields.get_text(Tag.PATH), recursive=is_recursive)
    return Fields()


async def _run_code(guest: Guest, stream: Stream) -> Fields:
    if stream.fields.get_text(Tag.LANGUAGE) != "python":
        message = Fields().text(Tag.MESSAGE, "this sandbox has no kernel for the language")
        raise StreamEnd(Status.UNAVAILABLE, message)
    code = bytearray()
    while chunk := await stream.read():
        code += chunk
        if len(code) > CODE_LIMIT_BYTES:
            raise LinkError(f"code is over {CODE_LIMIT_BYTES >> 20} MiB")
    timeout_ms = stream.fields.get_uint(Tag.TIMEOUT)

    async def emit(event: KernelEvent) -> None:
        await stream.write(_EVENT.pack(len(event.payload), event.kind) + event.payload)

    exit_code = await guest.kernel.run(
        code.decode("utf-8", "replace"), timeout_ms / 1000 if timeout_ms else None, emit
    )
    return Fields().uint(Tag.EXIT_CODE, exit_code)


def _record(path: str, entry: Entry) -> Fields:
    fields = Fields().text(Tag.NAME, posixpath.basename(path) or "/").text(Tag.PATH, path)
    fields.uint(Tag.MODE, entry.mode).uint(Tag.SIZE, entry.size_bytes)
    fields.uint(Tag.MTIME, entry.modified_at)
    return fields.text(Tag.LINK_TARGET, entry.target) if entry.is_link else fields


_HANDLERS: Mapping[Operation, Callable[[Guest, Stream], Awaitable[Fields]]] = {
    Operation.IDENTIFY: _identify,
    Operation.EXEC: _exec,
    Operation.READ_FILE: _read_file,
    Operation.WRITE_FILE: _write_file,
    Operation.LIST: _list,
    Operation.STAT: _stat,
    Operation.MKDIR: _make_directory,
    Operation.REMOVE: _remove,
    Operation.RUN_CODE: _run_code,
}
