"""From the messages of a stream to the value a call returns. Pure; shared by both forms."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any

from mitos._sdk.framing import decode_bytes
from mitos.errors import ExecFailedError, ExecutionDeadlineError, TruncatedStreamError
from mitos.types import ExecResult, Execution, ExecutionError, FileInfo, Result

__all__ = ["CodeFold", "ExecFold", "file_info", "truncated"]

DEADLINE_EXIT_CODE = 124

TextCallback = Callable[[str], None]
ResultCallback = Callable[[Result], None]
BytesCallback = Callable[[bytes], None]


def truncated(what: str) -> TruncatedStreamError:
    """The error for a stream that ended before its last message."""
    return TruncatedStreamError(
        f"the {what} stream ended before its result",
        "truncated_stream",
        cause="the connection or the server ended in mid-answer; the outcome is not known",
        remediation="Check the server's log; before repeating the call, look at what it did.",
    )


class ExecFold:
    """Collects the messages of one command.

    Args:
        timeout_s: what was asked for; named in the deadline's error.
        on_stdout: called with each piece of output as it comes.
        on_stderr: likewise for error output.
    """

    def __init__(
        self,
        timeout_s: int,
        on_stdout: BytesCallback | None = None,
        on_stderr: BytesCallback | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        self._output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._exit: dict[str, Any] | None = None

    def take(self, message: dict[str, Any]) -> None:
        """Takes the next message."""
        for name in ("stdout", "stderr"):
            if name in message:
                data = decode_bytes(message[name])
                self._output[name].append(data)
                if callback := self._callbacks[name]:
                    callback(data)
                return
        if "exit" in message:
            self._exit = message["exit"] or {}

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
            raise ExecFailedError(
                "the command could not be run",
                "exec_failed",
                cause=str(error),
                remediation="Check that program and working directory exist in the sandbox.",
            )
        exit_code = int(self._exit.get("exitCode", 0))
        if exit_code == DEADLINE_EXIT_CODE:
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
            exec_time_ms=float(self._exit.get("execTimeMs", 0.0)),
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
                text = decode_bytes(message[name]).decode("utf-8", "replace")
                self._execution.logs[name].append(text)
                if callback := self._callbacks[name]:
                    callback(text)
                return
        if "result" in message:
            self._take_result(message["result"] or {})
        elif "error" in message:
            error = message["error"] or {}
            self._execution.error = ExecutionError(
                name=str(error.get("name", "")),
                value=str(error.get("value", "")),
                traceback=[str(line) for line in error.get("traceback", [])],
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
        data = {mime: _payload(value) for mime, value in (message.get("data") or {}).items()}
        text = message.get("text")
        if text:
            data.setdefault("text/plain", text)
            self._execution.text = text
        shown = Result(data=data, is_main_result=bool(text))
        self._execution.results.append(shown)
        if self._on_result:
            self._on_result(shown)


def _payload(value: str) -> str:
    """A MIME payload as text; one that does not decode is kept as it came."""
    try:
        return decode_bytes(value).decode("utf-8")
    except (ValueError, binascii.Error):
        return value


def file_info(entry: dict[str, Any]) -> FileInfo:
    """An entry of a listing."""
    return FileInfo(
        name=str(entry.get("name", "")),
        is_dir=bool(entry.get("isDir", False)),
        size=int(entry.get("size", 0)),
        mode=int(entry.get("mode", 0)),
        modified_at=entry.get("modifiedAtUnix"),
    )
