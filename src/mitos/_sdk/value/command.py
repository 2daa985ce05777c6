"""Commands of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CommandInfo", "ExecResult"]


@dataclass
class ExecResult:
    """A command that ended.

    Attributes:
        exit_code: the program's; -1 when a signal killed it.
        stdout: its output, decoded as UTF-8 with replacement.
        stderr: its error output, likewise.
        exec_time_ms: wall time in milliseconds, measured by the server.

    Example:
        >>> sb.exec("echo hello; exit 3").exit_code
        3
    """

    exit_code: int
    stdout: str
    stderr: str
    exec_time_ms: float = 0.0


@dataclass
class CommandInfo:
    """A command of a sandbox that can be found again by its id.

    Attributes:
        id: its id.
        command: its arguments, cut when long.
        running: False once it has ended.
        kept: it lives on when nobody reads it.
        output_start: offset of the first byte of output that the sandbox still has.
        output_end: how many bytes of output it has given, both channels together.
        exec_time_ms: how long it has run, or ran.
        exit_code: as in `ExecResult`; None while it runs.
        pid: its process inside the sandbox; 0 once it has ended.
        error: why it never ran, else empty.

    Example:
        >>> job = sb.exec_background("sleep 60")
        >>> sb.commands()[0].running
        True
    """

    id: str
    command: str
    running: bool
    kept: bool
    output_start: int
    output_end: int
    exec_time_ms: float
    exit_code: int | None = None
    pid: int = 0
    error: str = ""
