"""The runtime half of the SDK: commands, code, files and terminals of one sandbox.

Each method builds a request, sends it, and folds the answer; the pure files beside this package
decide all that needs no I/O. How a sandbox is made and ended is in `direct.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mitos._sdk import answer, request
from mitos._sdk._async.background import AsyncBackgroundProcess
from mitos._sdk._async.command import AsyncFollower
from mitos._sdk._async.files import AsyncDirectSandboxFiles
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk._async.pty import AsyncPtyHandle
from mitos._sdk._async.rpc import AsyncRpc
from mitos._sdk.folding import CodeFold, ExecFold, command_info, read_timeout_s
from mitos._sdk.value.command import CommandInfo, ExecResult
from mitos._sdk.value.execution import Execution, Result

__all__ = ["AsyncRuntime"]

EXEC_TIMEOUT_S, EXEC_GRACE_S = 30, 5
CODE_TIMEOUT_S, CODE_GRACE_S = 60, 10


class AsyncRuntime:
    """What happens inside a sandbox. Needs an endpoint, a token and an id, and nothing else.

    Usable by itself. The handle of direct mode inherits from it because it publishes these very
    methods; a handle that publishes other parameters holds one.

    Args:
        http: the endpoint, and the token for it.
        sandbox_id: the sandbox's id.

    Attributes:
        id: the sandbox's id.
        files: its files.
    """

    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self._http = http
        self._rpc = AsyncRpc(http, request.checked_id(sandbox_id))
        self.files = AsyncDirectSandboxFiles(self._rpc)

    @property
    def id(self) -> str:
        return self._rpc.sandbox_id

    async def exec(
        self,
        command: str | Sequence[str],
        timeout: int = 30,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> ExecResult:
        r"""Runs a command in `/bin/sh` and waits for it. A non-zero exit code is no error.

        Args:
            command: shell text, or a list of arguments, which are quoted.
            timeout: seconds until it and everything it started is killed; at most 86400.
            cwd: default `/workspace`.
            env: variables over the sandbox's own.
            on_stdout: called with each piece of output as it comes.
            on_stderr: likewise for error output.

        Raises:
            ExecutionDeadlineError: it ran into the timeout.
            ExecFailedError: it could not be started.
            AgentRunError: the sandbox is gone, paused or busy.

        Example:
            >>> (await sb.exec("echo hello")).stdout
            'hello\n'
        """
        fold = ExecFold(timeout, on_stdout, on_stderr)
        message = request.exec_message(command, timeout, cwd, env)
        wait_s = read_timeout_s(timeout, EXEC_TIMEOUT_S, EXEC_GRACE_S)
        await self._rpc.stream("ExecStream", [message], fold.take, read_timeout_s=wait_s)
        return fold.result()

    async def exec_background(
        self,
        command: str | Sequence[str],
        timeout: int = request.MAX_EXEC_TIMEOUT_SECONDS,
        working_dir: str | None = None,
        env: Mapping[str, str] | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> AsyncBackgroundProcess:
        """Starts a command that outlives this call, its connection and this process.

        Its output is read beside the caller; when the connection breaks, another one goes on
        from the same byte. A server that cannot keep commands ends it when its connection ends.

        Args:
            command: as for `exec`.
            timeout: seconds until it and everything it started is killed; at most 86400.
            working_dir: default `/workspace`.
            env: variables over the sandbox's own.
            on_stdout: called with each piece of output as it comes, beside the caller.
            on_stderr: likewise for error output.

        Raises:
            AgentRunError: the sandbox is gone, paused or busy.

        Example:
            >>> server = await sb.exec_background("python -m http.server 8000")
            >>> await server.kill()
        """
        message = request.exec_message(command, timeout, working_dir, env)
        fold = ExecFold(timeout, on_stdout, on_stderr, raises_deadline=False)
        follower = AsyncFollower(self._rpc, request.new_command_id(), fold, message)
        return await AsyncBackgroundProcess._begin(follower)

    async def command(
        self,
        id: str,  # noqa: A002  as everywhere in this class
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> AsyncBackgroundProcess:
        """Finds a command again by its id, also one of another process or of the fork's parent.

        Its output comes from the beginning, as far as the sandbox still has it (8 MiB); the
        handle's `lost_bytes` counts what is gone. A command has one reader at a time: an earlier
        one fails with `canceled`.

        Raises:
            NotFoundError: no such command, or it has ended and was not kept.

        Example:
            >>> job = await sb.exec_background("echo built")
            >>> again = await sb.command(job.id)
            >>> (await again.wait()).exit_code
            0
        """
        fold = ExecFold(0, on_stdout, on_stderr, raises_deadline=False)
        follower = AsyncFollower(self._rpc, request.checked_command_id(id), fold, None)
        return await AsyncBackgroundProcess._begin(follower)

    async def commands(self) -> list[CommandInfo]:
        """The commands that run, and those that have ended and were kept.

        Example:
            >>> job = await sb.exec_background("sleep 60")
            >>> [each.running for each in await sb.commands()]
            [True]
        """
        found = await self._http.call("GET", f"/v1/sandboxes/{self.id}/commands")
        rows = answer.rows(found, "commands", self._http.api_key)
        return [command_info(row) for row in rows]

    async def run_code(
        self,
        code: str,
        language: str = "python",
        timeout: int = 60,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> Execution:
        """Runs a cell in the live interpreter; names stay defined for later cells and forks.

        Args:
            code: source text.
            language: `python`, `bash`, or `javascript` where the image has Node.js.
            timeout: seconds until the cell is interrupted; at most 86400.
            on_stdout: called with each piece of output as it comes.
            on_stderr: likewise for error output.
            on_result: called with each thing the cell shows.

        Returns:
            What it printed and showed; an exception of the cell is in `error`, not raised.

        Raises:
            AgentRunError: the cell could not be run at all, or the answer was cut short.

        Example:
            >>> (await sb.run_code("import math; math.sqrt(144)")).text
            '12.0'
        """
        fold = CodeFold(on_stdout, on_stderr, on_result)
        timeout_s = request.check_timeout(timeout)
        message = {"code": code, "language": language, "timeoutSeconds": timeout_s}
        wait_s = read_timeout_s(timeout, CODE_TIMEOUT_S, CODE_GRACE_S)
        await self._rpc.stream("RunCodeStream", [message], fold.take, read_timeout_s=wait_s)
        return fold.result()

    def pty_url(self) -> str:
        """The WebSocket address of a terminal; the key is not in it.

        Example:
            >>> sb.pty_url().startswith("ws://")
            True
        """
        return request.pty_url(self._http.base_url, self.id)

    async def pty(
        self, on_data: Callable[[bytes], None], cols: int = 80, rows: int = 24
    ) -> AsyncPtyHandle:
        r"""Opens a terminal with a shell.

        Args:
            on_data: called with what the terminal shows, as bytes.
            cols: width in characters.
            rows: height in characters.

        Example:
            >>> screen = []
            >>> terminal = await sb.pty(screen.append)
            >>> await terminal.send_input(b"exit 7\n")
            >>> await terminal.wait()
            7
        """
        return await AsyncPtyHandle.connect(self.pty_url(), self._http.api_key, on_data, cols, rows)

    async def create_pty(
        self, on_data: Callable[[bytes], None], cols: int = 80, rows: int = 24
    ) -> AsyncPtyHandle:
        """The same as `pty`, under its other published name.

        Example:
            >>> shown = []
            >>> terminal = await sb.create_pty(shown.append)
            >>> await terminal.kill()
        """
        return await self.pty(on_data, cols, rows)
