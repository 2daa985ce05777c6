"""Commands of a sandbox: what may be asked for, what comes back, and what is known of a kept one.

`client.py` opens the streams; this file is what goes over them.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from mitos.agent.answer import shown
from mitos.agent.process import MAX_INT32
from mitos.agent.stream import Closed, LinkStream
from mitos.wire.errors import ApiError, ConnectCode, conflict
from mitos.wire.link import Channel, Control, Fields, LinkError, Status, Tag

__all__ = [
    "Command",
    "CommandExit",
    "CommandInfo",
    "ExecRequest",
    "Output",
    "Terminal",
    "command_info",
    "exec_fields",
    "milliseconds",
    "unknown_command",
]

DEADLINE_EXIT_CODE = 124
SIGNAL_EXIT_CODE = -1
NOT_SPAWNED_EXIT_CODE = 1


@dataclass(frozen=True, slots=True)
class Terminal:
    """A pseudo-terminal for a command: its type and size in characters."""

    term: str = "xterm-256color"
    cols: int = 80
    rows: int = 24


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run.

    Attributes:
        argv: program and arguments; never a shell string of ours.
        env: variables over the sandbox's own.
        cwd: empty means `/workspace`.
        timeout_s: None means no deadline.
        stdin: False gives the command the null device.
        terminal: run on a pseudo-terminal; both outputs then come as stdout.
        id: what it can be found by; empty means that it cannot.
        keep: it lives on when nobody reads it, and is remembered when it has ended; needs an id.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    timeout_s: float | None = None
    stdin: bool = False
    terminal: Terminal | None = None
    id: str = ""
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a command's output."""

    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class CommandExit:
    """How a command ended.

    Attributes:
        exit_code: the program's; 124 at the deadline, -1 for a signal, 1 when it never ran.
        duration_s: time in which the sandbox ran.
        error: why it never ran, else empty.
    """

    exit_code: int
    duration_s: float
    error: str = ""


class Command:
    """A running command: iterate over its output, then read `exit`.

    Attributes:
        id: what it can be found by; may be empty.
        offset: of the first byte of output that will come, both channels counted together.
        lost: bytes of output before that offset that were asked for and are gone.
        exit: how it ended, once the output has come to its end.
    """

    def __init__(self, stream: LinkStream, command_id: str) -> None:
        self._stream = stream
        self.id = command_id
        self.offset = 0
        self.lost = 0
        self.exit: CommandExit | None = None

    async def read_report(self) -> None:
        """Takes in what an attach says ahead of the output.

        Raises:
            ApiError: `not_found` for an unknown command.
            LinkError: the agent sent something else.
        """
        first = await self._stream.read()
        if first is None:
            raise unknown_command(self.id)
        if first[0] is not Channel.INPUT:
            raise LinkError("output before the report of an attach")
        report = Fields.decode(first[1])
        self.offset, self.lost = report.get_uint(Tag.OFFSET), report.get_uint(Tag.LOST)

    @property
    def stands_still(self) -> bool:
        """True while its sandbox is paused."""
        return self._stream.clock.is_held

    async def ready(self, within_s: float) -> bool:
        """True once there is output or the end; False when so much time has passed first."""
        return await self._stream.ready(within_s)

    def __aiter__(self) -> AsyncIterator[Output]:
        return self._outputs()

    async def _outputs(self) -> AsyncIterator[Output]:
        while (chunk := await self._stream.read()) is not None:
            if chunk[0] is Channel.INPUT:
                raise LinkError("a report in the middle of output")
            yield Output(*chunk)
        self.exit = _command_exit(await self._stream.finish(), self.id)

    async def write(self, data: bytes) -> None:
        """Sends input, waiting while nobody reads; what comes after the end is dropped."""
        await self._stream.send(data)

    async def close_input(self) -> None:
        """Ends the input; on a terminal this is Ctrl-D."""
        await self._stream.send_eof()

    async def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size."""
        size = Fields().uint(Tag.COLS, cols).uint(Tag.ROWS, rows)
        await self._stream.control(Control.RESIZE, size)

    async def signal(self, number: int) -> None:
        """Signals the command's process group, or its terminal's foreground group."""
        await self._stream.control(Control.SIGNAL, Fields().uint(Tag.SIGNAL, number))


def _command_exit(closed: Closed, command_id: str) -> CommandExit:
    fields = closed.fields
    duration_s = fields.get_uint(Tag.DURATION) / 1e9
    if closed.status is Status.FAILED and fields.get_uint(Tag.ERRNO) == errno.EEXIST:
        raise conflict(
            f"there is a command {command_id!r} in this sandbox",
            "Attach to it, or start the other command under another id.",
            connect=ConnectCode.ALREADY_EXISTS,
        )
    if closed.status in _INTERRUPTED:
        raise _INTERRUPTED[closed.status](fields.get_text(Tag.MESSAGE))
    if closed.status is not Status.OK:
        error = shown(fields.get_text(Tag.MESSAGE)) or "the command could not be started"
        return CommandExit(NOT_SPAWNED_EXIT_CODE, duration_s, error)
    if fields.get_uint(Tag.TIMED_OUT):
        return CommandExit(DEADLINE_EXIT_CODE, duration_s)
    if fields.get_raw(Tag.SIGNAL) is not None:
        return CommandExit(SIGNAL_EXIT_CODE, duration_s)
    exit_code = fields.get_int(Tag.EXIT_CODE)
    return CommandExit(max(-MAX_INT32, min(exit_code, MAX_INT32)), duration_s)


def _refused(message: str) -> ApiError:
    return ApiError("invalid_input", "the sandbox refused the request", cause=message)


def _taken_over(message: str) -> ApiError:
    return ApiError(
        "canceled",
        "the command's output goes to another reader",
        cause=message,
        remediation="Attach to the command again; it has one reader at a time.",
    )


def _out_of_room(message: str) -> ApiError:
    return ApiError(
        "canceled",
        "the command's output could not be held for this reader",
        cause=message,
        remediation="Attach again: the answer says how much is lost. Read faster.",
        status=503,
        connect=ConnectCode.UNAVAILABLE,
    )


_INTERRUPTED = {
    Status.INVALID: _refused,
    Status.CANCELED: _taken_over,
    Status.UNAVAILABLE: _out_of_room,
}
"""Why a stream ended although its command did not."""


def unknown_command(command_id: str) -> ApiError:
    """The error for an id that no command of the sandbox has."""
    return ApiError(
        "not_found",
        f"no command {command_id!r} in this sandbox",
        remediation="List the commands; only those that were kept are found after their end.",
    )


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A command that can be found again.

    Attributes:
        id: its id.
        title: its arguments, cut when long; not UTF-8 becomes U+FFFD.
        is_kept: it lives on without a reader.
        output_start: offset of the first byte of output that is kept.
        output_end: offset of the next byte to come: how much it has said.
        pid: its process id inside the sandbox; 0 once it has ended.
        duration_s: how long it has run, or ran.
        exit: how it ended, or None while it runs.
    """

    id: str
    title: str
    is_kept: bool
    output_start: int
    output_end: int
    pid: int
    duration_s: float
    exit: CommandExit | None


def command_info(fields: Fields) -> CommandInfo:
    """An entry of the agent's listing.

    Raises:
        LinkError: an integer is not 8 bytes.
    """
    title = fields.get_raw(Tag.NAME) or b""
    ended = None
    if fields.get_uint(Tag.ENDED):
        failed = fields.get_raw(Tag.ERRNO) is not None
        ended = _command_exit(Closed(Status.FAILED if failed else Status.OK, fields), "")
    return CommandInfo(
        id=(fields.get_raw(Tag.COMMAND_ID) or b"").decode("utf-8", "replace"),
        title=title.decode("utf-8", "replace"),
        is_kept=bool(fields.get_uint(Tag.KEEP)),
        output_start=fields.get_uint(Tag.OFFSET),
        output_end=fields.get_uint(Tag.SIZE),
        pid=fields.get_uint(Tag.PID),
        duration_s=fields.get_uint(Tag.DURATION) / 1e9,
        exit=ended,
    )


def exec_fields(request: ExecRequest) -> Fields:
    """The fields of the `EXEC` that starts a command.

    Raises:
        ApiError: `invalid_input`.
    """
    for text in (*request.argv, *request.env, *request.env.values(), request.cwd):
        if "\0" in text:
            raise ApiError("invalid_input", "a command or variable holds a NUL byte")
    if any(not key or "=" in key for key in request.env):
        raise ApiError("invalid_input", "a variable's name is empty or holds '='")
    fields = Fields().texts(Tag.ARG, request.argv)
    fields.texts(Tag.ENV, (f"{key}={value}" for key, value in request.env.items()))
    if request.cwd:
        fields.text(Tag.CWD, request.cwd)
    fields.uint(Tag.TIMEOUT, milliseconds(request.timeout_s)).uint(Tag.STDIN, int(request.stdin))
    if request.id:
        fields.text(Tag.COMMAND_ID, request.id).uint(Tag.KEEP, int(request.keep))
    if request.terminal is not None:
        fields.text(Tag.TERM, request.terminal.term)
        fields.uint(Tag.COLS, request.terminal.cols).uint(Tag.ROWS, request.terminal.rows)
    return fields


def milliseconds(seconds: float | None) -> int:
    """A timeout as the link carries it: 0 for none, else at least 1."""
    return 0 if seconds is None else max(1, round(seconds * 1000))
