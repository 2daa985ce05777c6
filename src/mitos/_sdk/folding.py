"""From the messages of a stream to the value a call returns. Pure; shared by both forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitos._sdk.failure import exec_failed, malformed, truncated
from mitos._sdk.framing import decode_bytes
from mitos._sdk.value.command import CommandInfo, ExecResult
from mitos._sdk.value.execution import Execution, ExecutionError, Result
from mitos._sdk.value.file import FileInfo
from mitos.errors import ExecutionDeadlineError

__all__ = ["CodeFold", "ExecFold", "FileFold", "command_info", "file_info", "read_timeout_s"]

DEADLINE_EXIT_CODE = 124

TextCallback = Callable[[str], None]
ResultCallback = Callable[[Result], None]
BytesCallback = Callable[[bytes], None]


def read_timeout_s(timeout_s: int, default_s: int, grace_s: int) -> int:
    """How long to wait for a command's next message: its own timeout, or the server's, and more.

    The server answers at the deadline; the rest is for that answer's way.
    """
    return (timeout_s if timeout_s > 0 else default_s) + grace_s


class FileFold:
    """Collects the pieces of a file."""

    def __init__(self) -> None:
        self._content = bytearray()

    def take(self, message: dict[str, Any]) -> None:
        """Takes the next message."""
        self._content += _bytes(message.get("data", ""))

    def result(self) -> bytes:
        """The file, once the stream has ended."""
        return bytes(self._content)


class ExecFold:
    """Collects the messages of one command.

    Args:
        timeout_s: what was asked for; named in the deadline's error.
        on_stdout: called with each piece of output as it comes.
        on_stderr: likewise for error output.
        raises_deadline: False returns exit code 124 as any other.
    """

    def __init__(
        self,
        timeout_s: int,
        on_stdout: BytesCallback | None = None,
        on_stderr: BytesCallback | None = None,
        *,
        raises_deadline: bool = True,
    ) -> None:
        self._raises_deadline = raises_deadline
        self._timeout_s = timeout_s
        self._callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        self._output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._exit: dict[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """True once the exit has come."""
        return self._exit is not None

    def take(self, message: dict[str, Any]) -> int:
        """Takes the next message; returns how many bytes of output it held."""
        for name in ("stdout", "stderr"):
            if name in message:
                data = _bytes(message[name])
                self._output[name].append(data)
                if data and (callback := self._callbacks[name]):
                    callback(data)
                return len(data)
        if "exit" in message:
            self._exit = _object(message["exit"])
        return 0

    def result(self) -> ExecResult:
        """The command's result, once the stream has ended.

        Raises:
            TruncatedStreamError: no exit came.
            ExecFailedError: the command never ran.
            ExecutionDeadlineError: it ran into its deadline.
        """
        if self._exit is None:
            raise truncated("exec")
        if error := self._exit.get("error"):
            raise exec_failed(error)
        exit_code = _whole(self._exit.get("exitCode", 0))
        if exit_code == DEADLINE_EXIT_CODE and self._raises_deadline:
            raise ExecutionDeadlineError(
                f"the command did not end within {self._timeout_s} s",
                "exec_timeout",
                remediation="Raise the timeout, or start long work in the background.",
                context={"timeout_s": self._timeout_s},
            )
        return ExecResult(
            exit_code=exit_code,
            stdout=self._text("stdout"),
            stderr=self._text("stderr"),
            exec_time_ms=_number(self._exit.get("execTimeMs", 0.0)),
        )

    def _text(self, name: str) -> str:
        return b"".join(self._output[name]).decode("utf-8", "replace")


class CodeFold:
    """Collects the messages of one cell; callbacks get each piece as it comes."""

    def __init__(
        self,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
        on_result: ResultCallback | None = None,
    ) -> None:
        self._callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        self._on_result = on_result
        self._execution = Execution()
        self.ended = False

    def take(self, message: dict[str, Any]) -> None:
        """Takes the next message; what follows the exit code is ignored."""
        if self.ended:
            return
        for name in ("stdout", "stderr"):
            if name in message:
                text = _bytes(message[name]).decode("utf-8", "replace")
                self._execution.logs[name].append(text)
                if callback := self._callbacks[name]:
                    callback(text)
                return
        if "result" in message:
            self._take_result(_object(message["result"]))
        elif "error" in message:
            error = _object(message["error"])
            lines = error.get("traceback")
            self._execution.error = ExecutionError(
                name=str(error.get("name", "")),
                value=str(error.get("value", "")),
                traceback=[str(line) for line in (lines if isinstance(lines, list) else [])],
            )
        elif "exitCode" in message:
            self.ended = True

    def result(self) -> Execution:
        """The cell's outcome, once the stream has ended.

        Raises:
            TruncatedStreamError: no exit code came.
        """
        if not self.ended:
            raise truncated("run_code")
        return self._execution

    def _take_result(self, message: dict[str, Any]) -> None:
        data = {mime: _payload(value) for mime, value in _object(message.get("data")).items()}
        text = str(message.get("text") or "")
        if text:
            data.setdefault("text/plain", text)
            self._execution.text = text
        shown = Result(data=data, is_main_result=bool(text))
        self._execution.results.append(shown)
        if self._on_result:
            self._on_result(shown)


def file_info(entry: Any) -> FileInfo:
    """An entry of a listing."""
    found = _object(entry)
    return FileInfo(
        name=str(found.get("name", "")),
        is_dir=bool(found.get("isDir", False)),
        size=_whole(found.get("size", 0)),
        mode=_whole(found.get("mode", 0)),
        modified_at=found.get("modifiedAtUnix"),
    )


def command_info(entry: dict[str, Any]) -> CommandInfo:
    """A row of the list of commands."""
    running = bool(entry.get("running", False))
    return CommandInfo(
        id=str(entry.get("id", "")),
        command=str(entry.get("command", "")),
        running=running,
        kept=bool(entry.get("kept", False)),
        output_start=_whole(entry.get("output_start", 0)),
        output_end=_whole(entry.get("output_end", 0)),
        exec_time_ms=_number(entry.get("exec_time_ms", 0.0)),
        exit_code=None if running else _whole(entry.get("exit_code", 0)),
        pid=_whole(entry.get("pid", 0)),
        error=str(entry.get("error", "")),
    )


def _payload(value: Any) -> str:
    """A MIME payload as text; one that does not decode is kept as it came."""
    try:
        return decode_bytes(value).decode("utf-8")
    except (ValueError, AttributeError):
        return str(value)


def _bytes(value: Any) -> bytes:
    try:
        return decode_bytes(value)
    except (ValueError, AttributeError) as exc:
        raise malformed("a message") from exc


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise malformed("a message")


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise malformed("a number") from exc


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as exc:
        raise malformed("a number") from exc
