"""The operations of one sandbox's agent, as calls: run a command, read a file, run a cell.

Each method opens a stream of the guest link (`node/link.py`), builds its fields, and folds the
answer. What goes wrong comes out as `ApiError` with a code of the catalogue; nothing here knows
HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
)
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mitos.node.command import (
    Command,
    CommandExit,
    CommandInfo,
    ExecRequest,
    Output,
    Terminal,
    command_info,
    exec_fields,
    milliseconds,
    unknown_command,
)
from mitos.node.identity import Identity
from mitos.node.link import Closed, Link, LinkLostError, LinkStream
from mitos.node.process import MAX_INT32, ProcessReading
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.link import (
    PAYLOAD_LIMIT,
    EntryDecoder,
    Fields,
    KernelEvent,
    KernelEventDecoder,
    KernelEventKind,
    LinkError,
    Operation,
    Status,
    Tag,
    decode_entries,
)

_T = TypeVar("_T")

__all__ = [
    "NO_KERNEL_EXIT_CODE",
    "Change",
    "ChangeKind",
    "Command",
    "CommandExit",
    "CommandInfo",
    "ExecRequest",
    "FileEntry",
    "Guest",
    "LinkSource",
    "Output",
    "Terminal",
    "Tunnel",
]

NO_KERNEL_EXIT_CODE = 127

OPERATION_DEADLINE_S = 60.0
"""For operations that neither stream nor run user code; they take milliseconds."""

TRANSFER_DEADLINE_S = 120.0
"""How long one step of a file transfer may make no progress on the agent's side."""

CODE_LIMIT_BYTES = 32 << 20
LISTING_LIMIT_BYTES = 64 << 20
MAX_SIGNAL = 64
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the sandbox's kernel says about a path, links not followed."""

    name: str
    path: str
    mode: int
    size: int
    modified_at_unix: int
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        """True for a directory; False for a link to one."""
        return stat.S_ISDIR(self.mode)


class ChangeKind(enum.IntEnum):
    """What happened to a path."""

    READY = 0
    CREATE = 1
    MODIFY = 2
    DELETE = 3
    RENAME = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened in a watched directory; `new_path` is for `RENAME` only."""

    kind: ChangeKind
    path: str
    new_path: str = ""


class Tunnel:
    """A connection to a port of the sandbox, under way: bytes both ways.

    Args:
        stream: of a `DIAL`.
        port: for error texts.
    """

    def __init__(self, stream: LinkStream, port: int) -> None:
        self._stream = stream
        self._port = port

    async def accepted(self) -> None:
        """Waits until a program has connected to the port of an `ACCEPT`.

        Raises:
            ApiError: the agent cannot listen there.
        """
        if await self._stream.read() is None:
            _check(await self._stream.finish(), f"127.0.0.1:{self._port}")
            raise ApiError("internal", "the agent accepted nothing")

    async def read(self) -> bytes:
        """The next bytes from the port, or b"" when it has said all it had to say.

        Raises:
            ApiError: with Connect code `unavailable` when nothing listens there.
        """
        chunk = await self._stream.read()
        if chunk is not None:
            return chunk[1]
        if self._stream.closed is not None and self._stream.closed.status is Status.FAILED:
            raise _unreachable(self._port, self._stream.closed)
        return b""

    async def write(self, data: bytes) -> bool:
        """Sends bytes, waiting while the port does not read; False when it is gone."""
        return await self._stream.send(data)

    async def write_eof(self) -> None:
        """Says that nothing more comes. Idempotent."""
        await self._stream.send_eof()

    async def wait_closed(self) -> None:
        """Waits until all that was written is taken and both directions have ended."""
        await self._stream.finish()


def _unreachable(port: int, closed: Closed) -> ApiError:
    return ApiError(
        "internal",
        f"port {port} of the sandbox cannot be reached",
        cause=closed.fields.get_text(Tag.MESSAGE),
        remediation=f"Start a server on port {port} inside the sandbox, then try again.",
        context={"port": str(port)},
        status=502,
        connect=ConnectCode.UNAVAILABLE,
    )


class LinkSource(Protocol):
    """Where a call finds the link it runs over."""

    def session(self) -> AbstractAsyncContextManager[Link]:
        """The link, kept for the caller while the context is open.

        Raises:
            ApiError: there is none, and none can be made.
        """
        ...


class Guest:
    """A client of one agent. Any number of calls may run at the same time.

    Args:
        links: where each call finds the machine's link: a link, or a sandbox that may change it.
        explain_loss: asked for the error to raise when the link is lost in mid-call.

    Raises:
        ApiError: every method, with the code that fits; `invalid_input` for a request the agent
            refuses.
    """

    def __init__(self, links: LinkSource, explain_loss: Callable[[], Awaitable[ApiError]]) -> None:
        self._links = links
        self._explain_loss = explain_loss

    @contextlib.asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[Command]:
        """Starts a command.

        Leaving the context kills whatever of it still runs, unless the command is kept.
        """
        async with self._stream(Operation.EXEC, exec_fields(request)) as stream:
            yield Command(stream, request.id)

    @contextlib.asynccontextmanager
    async def attach(self, command_id: str, offset: int) -> AsyncIterator[Command]:
        """Reads a command's output from a byte offset on, then its live output and its exit.

        An earlier reader is closed. The command is kept from now on: leaving the context leaves it.

        Raises:
            ApiError: `not_found` for an unknown command; `canceled` when another reader comes.
        """
        fields = Fields().text(Tag.COMMAND_ID, command_id).uint(Tag.OFFSET, offset)
        async with self._stream(Operation.ATTACH, fields) as stream:
            command = Command(stream, command_id)
            await _step(command.read_report())
            yield command

    async def list_commands(self) -> list[CommandInfo]:
        """The running commands, and the kept ones that ended."""
        listing = await self._call(Operation.COMMANDS, Fields(), "")
        return [command_info(Fields.decode(each)) for each in listing.get_raws(Tag.COMMAND)]

    async def end_command(self, command_id: str) -> None:
        """Kills every process of a command; forgets a command that has ended.

        Raises:
            ApiError: `not_found` for an unknown command.
        """
        fields = Fields().text(Tag.COMMAND_ID, command_id)
        async with self._stream(Operation.END_COMMAND, fields) as stream:
            closed = await _step(stream.finish())
            if closed.status is Status.FAILED:
                raise unknown_command(command_id)
            _check(closed, "")

    async def read_file(
        self, path: str, *, offset: int = 0, size: int = 0
    ) -> AsyncGenerator[bytes]:
        """At most `size` bytes of the file, 0 for all, in chunks of at most 64 KiB."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.OFFSET, offset)
        fields.uint(Tag.SIZE, size)
        async with self._stream(Operation.READ_FILE, fields) as stream:
            while (chunk := await _step(stream.read())) is not None:
                yield chunk[1]
            _check(await stream.finish(), path)

    async def write_file(self, path: str, chunks: AsyncIterable[bytes], *, mode: int = 0) -> int:
        """Replaces the file in one step once all chunks are in; returns the bytes written."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.MODE, mode & 0o7777)
        async with self._stream(Operation.WRITE_FILE, fields) as stream:
            async for chunk in chunks:
                if not await _step(stream.send(chunk)):
                    break
            await _step(stream.send_eof())
            return _check(await _step(stream.finish()), path).get_uint(Tag.SIZE)

    async def list_directory(self, path: str, *, exact: bool = False) -> list[FileEntry]:
        """The entries, sorted by name; for a path that is no directory, that one entry.

        With `exact`, bytes of names that are not UTF-8 come as lone surrogates, which name the file
        in later calls.
        """
        fields = Fields().text(Tag.PATH, _path(path))
        async with self._stream(Operation.LIST, fields) as stream:
            listing = await _listing(stream, f"listing of {path!r}")
            _check(await stream.finish(), path)
            return [_entry(entry, exact=exact) for entry in decode_entries(listing)]

    async def stat(self, path: str) -> FileEntry:
        """What is at the path, links not followed."""
        return _entry(await self._call(Operation.STAT, Fields().text(Tag.PATH, _path(path)), path))

    async def make_directory(self, path: str, *, mode: int = 0) -> None:
        """Makes the directory and its parents; an existing one is fine and keeps its mode."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.MODE, mode & 0o7777)
        await self._call(Operation.MKDIR, fields, path)

    async def watch(self, path: str, *, recursive: bool) -> AsyncGenerator[Change]:
        """What changes in a directory from now on; the first is `READY`, once nothing is missed.

        Ends when the directory is removed. Names that are not UTF-8 are shown with U+FFFD.

        Raises:
            ApiError: `file_failed`, also when more happened than could be kept.
        """
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.RECURSIVE, int(recursive))
        decoder = EntryDecoder()
        async with self._stream(Operation.WATCH, fields) as stream:
            while (chunk := await stream.read()) is not None:
                for entry in decoder.feed(chunk[1]):
                    yield _change(entry)
            _check(await stream.finish(), path)

    async def remove(self, path: str, *, recursive: bool = True) -> None:
        """Removes a file or tree; a missing path is fine."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.RECURSIVE, int(recursive))
        await self._call(Operation.REMOVE, fields, path)

    @contextlib.asynccontextmanager
    async def run_code(
        self, code: str, *, language: str = "python", timeout_s: float | None = None
    ) -> AsyncIterator[AsyncIterator[KernelEvent]]:
        """Runs a cell in the sandbox's kernel; the last event is `DONE`."""
        source = code.encode("utf-8", "surrogatepass")
        if len(source) > CODE_LIMIT_BYTES:
            raise ApiError("body_too_large", f"code is over {CODE_LIMIT_BYTES >> 20} MiB")
        fields = Fields().text(Tag.LANGUAGE, language).uint(Tag.TIMEOUT, milliseconds(timeout_s))
        async with self._stream(Operation.RUN_CODE, fields) as stream:
            feeder = asyncio.create_task(_feed(stream, source), name="code-feeder")
            try:
                yield _kernel_events(stream, language)
            finally:
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[Tunnel]:
        """Connects to a TCP port on the sandbox's loopback. Leaving the context ends it.

        Args:
            port: 1 to 65535.
        """
        if not 1 <= port <= MAX_PORT:
            raise ApiError("invalid_input", f"a port is from 1 to {MAX_PORT}, not {port}")
        async with self._stream(Operation.DIAL, Fields().uint(Tag.PORT, port)) as stream:
            yield Tunnel(stream, port)

    @contextlib.asynccontextmanager
    async def accept(self, port: int) -> AsyncIterator[Tunnel]:
        """Waits for a program inside to connect to a port of the agent.

        Args:
            port: of `127.0.0.1` inside; the same one in every call.
        """
        async with self._stream(Operation.ACCEPT, Fields().uint(Tag.PORT, port)) as stream:
            yield Tunnel(stream, port)

    async def read_processes(self) -> ProcessReading:
        """One reading of all processes."""
        async with self._stream(Operation.PROCESSES, Fields()) as stream:
            listing = await _listing(stream, "table of processes")
            return ProcessReading.of(listing, _check(await _step(stream.finish()), ""))

    async def signal(self, pid: int, number: int) -> None:
        """Sends a signal to one process.

        Args:
            pid: above 1; process 1 is the agent.
            number: 1 to 64.

        Raises:
            ApiError: `not_found` when no process has the id; `invalid_input` for a number out of
                range, and with Connect code `permission_denied` for a process of the agent's own.
        """
        _check_signal(pid, number)
        fields = Fields().uint(Tag.PID, pid).uint(Tag.SIGNAL, number)
        async with self._stream(Operation.SIGNAL, fields) as stream:
            closed = await _step(stream.finish())
            if closed.status is Status.FAILED:
                raise _signal_error(closed.fields.get_uint(Tag.ERRNO), pid)
            _check(closed, "")

    async def count_processes(self) -> int:
        """How many processes there are, the agent included."""
        answer = await self._call(Operation.VITALS, Fields(), "")
        return min(answer.get_uint(Tag.PROCESS_COUNT), MAX_INT32)

    async def identify(self, identity: Identity, *, forked: bool, deadline_s: float) -> None:
        """Gives the machine its identity and fresh entropy, and checks that it took them.

        Raises:
            ApiError: `internal` when the agent does not confirm, `exec_failed` when an executable
                in `/etc/mitos/after-fork.d` fails; the machine must not be served.
        """
        try:
            async with asyncio.timeout(deadline_s):
                async with self._stream(
                    Operation.IDENTIFY, identity.fields(forked=forked)
                ) as stream:
                    answer = _check_identified(await stream.finish())
        except TimeoutError:
            raise ApiError(
                "internal", f"the sandbox did not confirm its identity within {deadline_s:.0f} s"
            ) from None
        identity.check(answer)

    async def _call(self, operation: Operation, fields: Fields, path: str) -> Fields:
        async with self._stream(operation, fields) as stream:
            try:
                async with asyncio.timeout(OPERATION_DEADLINE_S):
                    return _check(await stream.finish(), path)
            except TimeoutError:
                raise _stalled() from None

    @contextlib.asynccontextmanager
    async def _stream(self, operation: Operation, fields: Fields) -> AsyncIterator[LinkStream]:
        if sum(len(value) + 5 for _, value in fields.items) > PAYLOAD_LIMIT:
            raise ApiError("invalid_input", "the request is over 1 MiB")
        try:
            async with (
                self._links.session() as link,
                await link.open(operation, fields) as stream,
            ):
                yield stream
        except LinkLostError as exc:
            raise await self._explain_loss() from exc
        except LinkError as exc:
            raise ApiError("internal", "the sandbox's answer could not be read") from exc


def _path(path: str) -> str:
    if not path or "\0" in path:
        raise ApiError("invalid_input", "a path must be non-empty and hold no NUL byte")
    return path


async def _feed(stream: LinkStream, source: bytes) -> None:
    with contextlib.suppress(LinkLostError):
        if await stream.send(source):
            await stream.send_eof()


async def _kernel_events(stream: LinkStream, language: str) -> AsyncIterator[KernelEvent]:
    decoder, done = KernelEventDecoder(), False
    while (chunk := await stream.read()) is not None:
        for event in decoder.feed(chunk[1]):
            done = done or event.kind is KernelEventKind.DONE
            yield event
    closed = await stream.finish()
    if done:
        return
    if closed.status is not Status.UNAVAILABLE:
        _check(closed, "")
    message = closed.fields.get_text(Tag.MESSAGE) or f"no kernel for {language!r} in this sandbox"
    yield KernelEvent.error("KernelUnavailable", message)
    yield KernelEvent(KernelEventKind.DONE, bytes([NO_KERNEL_EXIT_CODE]))


async def _step(step: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(TRANSFER_DEADLINE_S):
            return await step
    except TimeoutError:
        raise _stalled() from None


async def _listing(stream: LinkStream, what: str) -> bytes:
    """All output of a stream whose answer is a list."""
    listing = bytearray()
    while (chunk := await _step(stream.read())) is not None:
        listing += chunk[1]
        if len(listing) > LISTING_LIMIT_BYTES:
            raise ApiError(
                "file_failed",
                f"the {what} is over {LISTING_LIMIT_BYTES >> 20} MiB",
                connect=ConnectCode.RESOURCE_EXHAUSTED,
            )
    return bytes(listing)


def _stalled() -> ApiError:
    return ApiError(
        "exec_timeout",
        "the sandbox made no progress on the operation",
        remediation="Check that the sandbox is not out of memory or CPU, then try again.",
    )


def _change(fields: Fields) -> Change:
    try:
        kind = ChangeKind(fields.get_uint(Tag.CHANGE))
    except ValueError as exc:
        raise LinkError(str(exc)) from None
    new_path = _shown(fields.get_text(Tag.NEW_PATH))
    return Change(kind, _shown(fields.get_text(Tag.PATH)), new_path)


def _entry(fields: Fields, *, exact: bool = False) -> FileEntry:
    shown = str if exact else _shown
    return FileEntry(
        name=shown(fields.get_text(Tag.NAME)),
        path=shown(fields.get_text(Tag.PATH)),
        mode=fields.get_uint(Tag.MODE),
        size=fields.get_uint(Tag.SIZE),
        modified_at_unix=fields.get_int(Tag.MTIME),
        link_target=shown(fields.get_text(Tag.LINK_TARGET)),
    )


def _shown(name: str) -> str:
    """A name as protobuf can carry it: bytes that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_CONNECT_OF_ERRNO = {
    errno.EACCES: ConnectCode.PERMISSION_DENIED,
    errno.EPERM: ConnectCode.PERMISSION_DENIED,
    errno.EROFS: ConnectCode.PERMISSION_DENIED,
    errno.ENOTDIR: ConnectCode.FAILED_PRECONDITION,
    errno.EISDIR: ConnectCode.FAILED_PRECONDITION,
    errno.ENOTEMPTY: ConnectCode.FAILED_PRECONDITION,
    errno.EEXIST: ConnectCode.FAILED_PRECONDITION,
    errno.ELOOP: ConnectCode.FAILED_PRECONDITION,
    errno.EBUSY: ConnectCode.FAILED_PRECONDITION,
    errno.ENXIO: ConnectCode.FAILED_PRECONDITION,
    errno.ENAMETOOLONG: ConnectCode.INVALID_ARGUMENT,
    errno.ENOSPC: ConnectCode.RESOURCE_EXHAUSTED,
    errno.EDQUOT: ConnectCode.RESOURCE_EXHAUSTED,
    errno.ENOBUFS: ConnectCode.RESOURCE_EXHAUSTED,
    errno.ENOMEM: ConnectCode.RESOURCE_EXHAUSTED,
    errno.EFBIG: ConnectCode.RESOURCE_EXHAUSTED,
}
"""What the errno of a file operation means on the wire; anything else is internal."""


def _check(closed: Closed, path: str) -> Fields:
    """The fields of a stream that ended well.

    Raises:
        ApiError: it did not.
    """
    if closed.status is Status.OK:
        return closed.fields
    if closed.status is Status.INVALID:
        raise _invalid(closed)
    if closed.status is Status.CANCELED:
        raise ApiError("canceled", "the operation was canceled")
    message = closed.fields.get_text(Tag.MESSAGE) or "the operation failed"
    number = closed.fields.get_uint(Tag.ERRNO)
    if closed.status is Status.UNAVAILABLE:
        raise ApiError("too_many_streams", message)
    if number == errno.ENOENT:
        raise ApiError(
            "not_found",
            f"no such file or directory: {path!r}",
            cause=message,
            remediation="Check the path; list its folder with files.list.",
            context={"path": path},
        )
    raise ApiError(
        "file_failed",
        f"the file operation on {path!r} failed",
        cause=message,
        context={"path": path},
        connect=_CONNECT_OF_ERRNO.get(number, ConnectCode.INTERNAL),
    )


def _check_signal(pid: int, number: int) -> None:
    if pid <= 1:
        raise ApiError(
            "invalid_input",
            f"process {pid} cannot be signalled",
            remediation="Name a process above 1; to end the sandbox, terminate it.",
        )
    if not 1 <= number <= MAX_SIGNAL:
        raise ApiError(
            "invalid_input",
            f"signal {number} is not a number from 1 to {MAX_SIGNAL}",
            remediation="Send a POSIX number, such as 15 to ask a process to end.",
        )


def _signal_error(number: int, pid: int) -> ApiError:
    if number == errno.ESRCH:
        return ApiError(
            "not_found",
            f"no process {pid} in this sandbox",
            remediation="Look the id up with Processes; the process may have ended.",
            context={"pid": str(pid)},
        )
    return ApiError(
        "invalid_input",
        f"process {pid} belongs to the agent and cannot be signalled",
        remediation="Signal the command it watches over: the process whose parent it is.",
        context={"pid": str(pid)},
        connect=ConnectCode.PERMISSION_DENIED,
    )


def _check_identified(closed: Closed) -> Fields:
    if closed.status is not Status.FAILED:
        return _check(closed, "")
    cause = _shown(closed.fields.get_text(Tag.MESSAGE))
    if hook := _shown(closed.fields.get_text(Tag.PATH)):
        raise ApiError(
            "exec_failed",
            f"{hook} failed in the forked sandbox, which was destroyed",
            cause=cause,
            remediation="Correct or remove that executable in the sandbox, then fork again.",
        )
    raise ApiError(
        "internal",
        "the sandbox did not take its new identity and was destroyed",
        cause=cause,
        remediation="Read the cause: what the sandbox it came from does stands in the way.",
    )


def _invalid(closed: Closed) -> ApiError:
    return ApiError(
        "invalid_input",
        "the sandbox refused the request",
        cause=closed.fields.get_text(Tag.MESSAGE),
    )
