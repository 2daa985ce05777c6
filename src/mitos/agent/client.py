"""The operations of one sandbox's agent, as calls: run a command, read a file, run a cell.

Each method opens a stream of the guest link (`agent/link.py`), builds its fields, and folds the
answer. What goes wrong comes out as `ApiError` with a code of the catalogue; nothing here knows
HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
)
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from mitos.agent.answer import check, check_identified, overdue, signal_error, unresponsive
from mitos.agent.cell import running_cell
from mitos.agent.command import (
    Command,
    CommandInfo,
    ExecRequest,
    command_info,
    exec_fields,
    milliseconds,
    unknown_command,
)
from mitos.agent.file import Change, FileEntry
from mitos.agent.identity import Identity
from mitos.agent.link import Link
from mitos.agent.process import MAX_INT32, ProcessReading
from mitos.agent.stream import (
    Deadline,
    LinkLostError,
    LinkStream,
    OverdueError,
    UnresponsiveError,
)
from mitos.agent.tunnel import Tunnel
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.link import (
    PAYLOAD_LIMIT,
    EntryDecoder,
    Fields,
    KernelEvent,
    LinkError,
    Operation,
    Status,
    Tag,
    decode_entries,
)

_T = TypeVar("_T")

__all__ = ["AgentClient", "LinkSource"]

OPERATION_DEADLINE_S = 60.0
"""For operations that neither stream nor run user code; they take milliseconds."""

TRANSFER_DEADLINE_S = 120.0
"""How long one step of a file transfer may make no progress on the agent's side."""

COMMAND_GRACE_S = 3.0
"""How long after a command's deadline its agent may take to say that it has ended."""

CODE_LIMIT_BYTES = 32 << 20
LISTING_LIMIT_BYTES = 64 << 20
MAX_SIGNAL = 64
MAX_PORT = 65_535


class LinkSource(Protocol):
    """Where a call finds the link it runs over."""

    def session(self) -> AbstractAsyncContextManager[Link]:
        """The link, kept for the caller while the context is open.

        Raises:
            ApiError: there is none, and none can be made.
        """
        ...


class AgentClient:
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
            if request.timeout_s is not None:
                stream.limit(Deadline(stream.clock, request.timeout_s, COMMAND_GRACE_S))
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
            await _step(stream, command.read_report())
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
            closed = await _step(stream, stream.finish())
            if closed.status is Status.FAILED:
                raise unknown_command(command_id)
            check(closed, "")

    async def read_file(
        self, path: str, *, offset: int = 0, size: int = 0
    ) -> AsyncGenerator[bytes]:
        """At most `size` bytes of the file, 0 for all, in chunks of at most 64 KiB."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.OFFSET, offset)
        fields.uint(Tag.SIZE, size)
        async with self._stream(Operation.READ_FILE, fields) as stream:
            while (chunk := await _step(stream, stream.read())) is not None:
                yield chunk[1]
            check(await _step(stream, stream.finish()), path)

    async def write_file(self, path: str, chunks: AsyncIterable[bytes], *, mode: int = 0) -> int:
        """Replaces the file in one step once all chunks are in; returns the bytes written."""
        fields = Fields().text(Tag.PATH, _path(path)).uint(Tag.MODE, mode & 0o7777)
        async with self._stream(Operation.WRITE_FILE, fields) as stream:
            async for chunk in chunks:
                if not await _step(stream, stream.send(chunk)):
                    break
            await _step(stream, stream.send_eof())
            return check(await _step(stream, stream.finish()), path).get_uint(Tag.SIZE)

    async def list_directory(self, path: str, *, exact: bool = False) -> list[FileEntry]:
        """The entries, sorted by name; for a path that is no directory, that one entry.

        With `exact`, bytes of names that are not UTF-8 come as lone surrogates, which name the file
        in later calls.
        """
        fields = Fields().text(Tag.PATH, _path(path))
        async with self._stream(Operation.LIST, fields) as stream:
            listing = await _listing(stream, f"listing of {path!r}")
            check(await _step(stream, stream.finish()), path)
            return [FileEntry.of(entry, exact=exact) for entry in decode_entries(listing)]

    async def stat(self, path: str) -> FileEntry:
        """What is at the path, links not followed."""
        return FileEntry.of(
            await self._call(Operation.STAT, Fields().text(Tag.PATH, _path(path)), path)
        )

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
                    yield Change.of(entry)
            check(await _step(stream, stream.finish()), path)

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
        async with (
            self._stream(Operation.RUN_CODE, fields) as stream,
            running_cell(stream, source, language, timeout_s) as events,
        ):
            yield events

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
    async def accept(self, port: int | None) -> AsyncIterator[Tunnel]:
        """Waits for a program inside to connect to the agent.

        Args:
            port: of `127.0.0.1` inside, the same one in every call; None for the self-service
                socket.
        """
        fields = Fields() if port is None else Fields().uint(Tag.PORT, port)
        async with self._stream(Operation.ACCEPT, fields) as stream:
            yield Tunnel(stream, port)

    async def read_processes(self) -> ProcessReading:
        """One reading of all processes."""
        async with self._stream(Operation.PROCESSES, Fields()) as stream:
            listing = await _listing(stream, "table of processes")
            return ProcessReading.of(listing, check(await _step(stream, stream.finish()), ""))

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
            closed = await _step(stream, stream.finish())
            if closed.status is Status.FAILED:
                raise signal_error(closed.fields.get_uint(Tag.ERRNO), pid)
            check(closed, "")

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
        sent_ns = time.time_ns()
        try:
            async with asyncio.timeout(deadline_s):
                async with self._stream(
                    Operation.IDENTIFY, identity.fields(forked=forked)
                ) as stream:
                    answer = check_identified(await stream.finish())
        except TimeoutError:
            raise ApiError(
                "internal", f"the sandbox did not confirm its identity within {deadline_s:.0f} s"
            ) from None
        identity.check(answer, sent_ns=sent_ns, received_ns=time.time_ns())

    async def _call(self, operation: Operation, fields: Fields, path: str) -> Fields:
        async with self._stream(operation, fields) as stream:
            try:
                async with stream.clock.timeout(OPERATION_DEADLINE_S):
                    return check(await stream.finish(), path)
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
        except UnresponsiveError as exc:
            raise unresponsive(exc) from exc
        except OverdueError as exc:
            raise overdue() from exc
        except LinkError as exc:
            raise ApiError("internal", "the sandbox's answer could not be read") from exc


def _path(path: str) -> str:
    if not path or "\0" in path:
        raise ApiError("invalid_input", "a path must be non-empty and hold no NUL byte")
    return path


async def _step(stream: LinkStream, step: Awaitable[_T]) -> _T:
    try:
        async with stream.clock.timeout(TRANSFER_DEADLINE_S):
            return await step
    except TimeoutError:
        raise _stalled() from None


async def _listing(stream: LinkStream, what: str) -> bytes:
    """All output of a stream whose answer is a list."""
    listing = bytearray()
    while (chunk := await _step(stream, stream.read())) is not None:
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
