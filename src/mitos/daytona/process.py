"""Commands and cells of a sandbox, as Daytona code runs them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from mitos.daytona.parameter import CodeRunParams
from mitos.direct import DirectSandbox

__all__ = ["ExecuteResponse", "ExecutionArtifacts", "Process"]

EXEC_TIMEOUT_S = 30
CODE_TIMEOUT_S = 60


class ExecutionArtifacts:
    """What a command left: its output."""

    def __init__(self, stdout: str = "", charts: list[Any] | None = None) -> None:
        self.stdout = stdout
        self.charts = charts


class ExecuteResponse:
    """How a command or cell ended."""

    def __init__(
        self, exit_code: int, result: str, artifacts: ExecutionArtifacts | None = None
    ) -> None:
        self.exit_code = exit_code
        self.result = result
        self.artifacts = artifacts


class Process:
    """`sandbox.process`.

    Example:
        >>> machine.process.exec("exit 3").exit_code
        3
    """

    def __init__(self, sandbox: DirectSandbox, language: str) -> None:
        self._sandbox = sandbox
        self._language = language

    def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
    ) -> ExecuteResponse:
        r"""Runs a shell command, 30 s unless `timeout` says otherwise; `result` is its stdout.

        Example:
            >>> machine.process.exec("echo $MODE", env={"MODE": "test"}).result
            'test\n'
        """
        parts = [f"export {name}={shlex.quote(value)};" for name, value in (env or {}).items()]
        if cwd is not None:
            parts.append(f"cd {shlex.quote(cwd)};")
        found = self._sandbox.exec(" ".join([*parts, command]), timeout=timeout or EXEC_TIMEOUT_S)
        return ExecuteResponse(found.exit_code, found.stdout, ExecutionArtifacts(found.stdout))

    def code_run(
        self,
        code: str,
        params: CodeRunParams | None = None,  # noqa: ARG002  published
        timeout: int | None = None,
    ) -> ExecuteResponse:
        """Runs a cell, 60 s unless `timeout` says otherwise; `result` is its value or output.

        Example:
            >>> machine.process.code_run("6 * 7").result
            '42'
        """
        found = self._sandbox.run_code(
            code, language=self._language, timeout=timeout or CODE_TIMEOUT_S
        )
        printed = "".join(found.logs["stdout"])
        result = printed if found.text is None else found.text
        return ExecuteResponse(1 if found.error else 0, result, ExecutionArtifacts(printed))
