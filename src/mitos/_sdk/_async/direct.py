"""Direct mode: sandboxes of one server, without a cluster.

A shell: each method builds a request, awaits once and folds the answer; what can be decided without
I/O is decided in the pure files beside this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from mitos._sdk import answer, failure, request, settings, tree
from mitos._sdk._async.background import AsyncBackgroundProcess
from mitos._sdk._async.command import AsyncFollower
from mitos._sdk._async.files import AsyncDirectSandboxFiles
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk._async.pty import AsyncPtyHandle
from mitos._sdk._async.relatives import AsyncRelatives
from mitos._sdk.folding import CodeFold, ExecFold, command_info, read_timeout_s
from mitos.errors import AgentRunError, NotFoundError, TransportFailedError
from mitos.types import (
    CommandInfo,
    ExecResult,
    Execution,
    Forked,
    Network,
    Result,
)

__all__ = ["AsyncDirectSandbox", "AsyncSandboxServer", "create"]

SERVER_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 3600.0
SANDBOX_TIMEOUT_S = 30.0
EXEC_TIMEOUT_S, EXEC_GRACE_S = 30, 5
CODE_TIMEOUT_S, CODE_GRACE_S = 60, 10
_UNSAID: dict[str, Any] = {"template_id": "", "endpoint": "", "fork_time_ms": 0.0}
"""What a listing may leave out of a sandbox."""


async def create(
    image: str = "python",
    api_key: str | None = None,
    base_url: str | None = None,
    id: str | None = None,  # noqa: A002  published name
    network: Network | None = None,
    idempotency_key: str | None = None,
    workload: dict[str, Any] | None = None,
    resources: dict[str, int] | None = None,
    region: str | None = None,
) -> AsyncDirectSandbox:
    r"""Starts a sandbox from a template, which is made first if the server does not have it.

    Args:
        image: the template's name: `python`, `node`, `base` or one of the server's own.
        api_key: see `mitos.direct`; an empty text means no key.
        base_url: the server; default `MITOS_BASE_URL`, then the hosted service.
        id: of the sandbox; 1 to 64 letters, digits, `-`, `_`; generated when left out.
        network: what the template's sandboxes may reach; nothing by default.
        idempotency_key: repeating a create with the same key gives the same sandbox.
        workload: a program that runs in the sandbox from its first instant: `{"command": [...],
            "env": {...}, "ready": {"port", "path", "expect", "timeout_seconds"}}`.
        resources: `{"vcpu_count": CPUs, "mem_size_mib": MiB}`.
        region: where to run, on servers that have regions.

    Raises:
        AgentRunError: `missing_base_url`, `invalid_sandbox_id`, `not_found` for an unknown image,
            `build_failed`, or no server there.

    Example:
        >>> sb = await create("python")
        >>> (await sb.exec("echo hello")).stdout
        'hello\n'
    """
    sandbox_id = request.new_id() if id is None else request.checked_id(id)
    server = AsyncSandboxServer.from_auth(api_key, base_url)
    await server.ensure_template(image, network=network, workload=workload, resources=resources)
    return await server.fork(image, sandbox_id, idempotency_key, region)


class AsyncSandboxServer:
    """A server that runs sandboxes.

    Args:
        url: its origin.
        api_key: its key; not looked up anywhere else.

    Example:
        >>> server = AsyncSandboxServer("http://127.0.0.1:8080")
        >>> sb = await server.fork("python")
    """

    def __init__(self, url: str = settings.DEFAULT_BASE_URL, api_key: str | None = None) -> None:
        self._http = AsyncHttp(url, api_key, timeout_s=SERVER_TIMEOUT_S)
        self.url = self._http.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @classmethod
    def from_auth(
        cls, api_key: str | None = None, base_url: str | None = None
    ) -> AsyncSandboxServer:
        """The server that arguments, environment and credential file name, in that order.

        Raises:
            AgentRunError: `missing_base_url`.

        Example:
            >>> server = AsyncSandboxServer.from_auth(base_url="http://127.0.0.1:8080")
        """
        found = settings.resolve(api_key, base_url)
        return cls(found.base_url, found.api_key)

    async def health(self) -> dict[str, Any]:
        """How the server is: `status`, `mock`, and how many templates and sandboxes it has.

        Example:
            >>> (await server.health())["status"]
            'ok'
        """
        return answer.members(await self._http.call("GET", "/v1/health"), self._http.api_key)

    async def list_templates(self) -> list[dict[str, Any]]:
        """The templates sandboxes can be started from.

        Example:
            >>> "python" in [each["id"] for each in await server.list_templates()]
            True
        """
        found = await self._http.call("GET", "/v1/templates")
        return answer.rows(found, "templates", self._http.api_key)

    async def create_template(
        self,
        id: str,  # noqa: A002  published name
        init_wait_seconds: int = 5,
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """Makes a template; an existing one takes the new network posture.

        The first build of an image may take minutes.

        Raises:
            AgentRunError: `not_found` for an unknown image, `build_failed`, `invalid_input`.

        Example:
            >>> (await server.create_template("python"))["ready"]
            True
        """
        optional = {
            "network": None if network is None else network.to_dict(),
            "workload": workload,
            "resources": resources,
        }
        body = request.template_body(id, init_wait_seconds, optional)
        made = await self._http.call(
            "POST",
            "/v1/templates",
            body,
            idempotency_key=idempotency_key,
            timeout_s=BUILD_TIMEOUT_S,
        )
        return answer.members(made, self._http.api_key)

    async def ensure_template(
        self,
        id: str,  # noqa: A002  published name
        init_wait_seconds: int = 5,
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """The same; a server that answers "exists already" is fine.

        Example:
            >>> (await server.ensure_template("python"))["ready"]
            True
        """
        try:
            return await self.create_template(
                id, init_wait_seconds, network, idempotency_key, workload, resources
            )
        except AgentRunError as exc:
            if exc.status != 409:
                raise
            return {"id": id, "ready": True}

    async def fork(
        self,
        template: str,
        id: str | None = None,  # noqa: A002  published name
        idempotency_key: str | None = None,
        region: str | None = None,
    ) -> AsyncDirectSandbox:
        """Starts a sandbox from a template.

        Raises:
            AgentRunError: `not_found`, `invalid_sandbox_id`, `quota_exceeded`, `fork_unavailable`.

        Example:
            >>> sb = await server.fork("python")
        """
        body: dict[str, Any] = {
            "template": template,
            "id": request.new_id() if id is None else request.checked_id(id),
        }
        if region:
            body["region"] = region
        made = await self._http.fork("/v1/fork", body, idempotency_key or request.new_key())
        return AsyncDirectSandbox._of(answer.descriptor(made, self._http.api_key), self._http)

    async def list_sandboxes(self) -> list[dict[str, Any]]:
        """The sandboxes that run.

        Example:
            >>> sb.id in [each["id"] for each in await server.list_sandboxes()]
            True
        """
        found = await self._http.call("GET", "/v1/sandboxes")
        return answer.rows(found, "sandboxes", self._http.api_key)

    async def sandboxes(self) -> list[AsyncDirectSandbox]:
        """Handles of the sandboxes that run.

        Raises:
            AgentRunError: `invalid_response` when the server does not say what they are.

        Example:
            >>> for sandbox in await server.sandboxes():
            ...     await sandbox.terminate()
        """
        return [self._handle(row) for row in await self.list_sandboxes()]

    async def connect(self, sandbox_id: str) -> AsyncDirectSandbox:
        """A handle of a sandbox that runs already.

        Raises:
            NotFoundError: none of that id runs.
            AgentRunError: `invalid_sandbox_id`; nothing has been sent.

        Example:
            >>> again = await server.connect(sb.id)
        """
        request.checked_id(sandbox_id)
        for row in await self.list_sandboxes():
            if row.get("id") == sandbox_id:
                return self._handle(row)
        raise NotFoundError(
            f"no sandbox {sandbox_id!r} runs",
            "not_found",
            remediation="See which do with list_sandboxes().",
            status=404,
            context={"sandbox": sandbox_id},
        )

    def _handle(self, row: dict[str, Any]) -> AsyncDirectSandbox:
        found = answer.descriptor({**_UNSAID, **row}, self._http.api_key)
        return AsyncDirectSandbox._of(found, self._http)


class AsyncDirectSandbox(AsyncRelatives):
    r"""A sandbox of a server. A context manager: leaving it terminates the sandbox.

    Attributes:
        id: its id.
        template: the template it came from.
        endpoint: the origin its server says it serves it at.
        fork_time_ms: how long the server took to bring it up, in milliseconds.
        files: its files.

    Example:
        >>> async with await create("python") as sb:
        ...     (await sb.exec("echo hello")).stdout
        'hello\n'
    """

    def __init__(
        self,
        id: str,  # noqa: A002  published name
        template: str,
        endpoint: str,
        server_url: str,
        fork_time_ms: float,
        api_key: str | None = None,
        _http: Any = None,
    ) -> None:
        self.id = request.checked_id(id)
        self.template = template
        self.endpoint = endpoint
        self.fork_time_ms = fork_time_ms
        self._http = AsyncHttp(server_url, api_key, timeout_s=SANDBOX_TIMEOUT_S, client=_http)
        self.files = AsyncDirectSandboxFiles(id, self._http)

    @classmethod
    def _of(cls, descriptor: dict[str, Any], http: AsyncHttp) -> AsyncDirectSandbox:
        """The handle of a sandbox that a server has just described."""
        return cls(
            descriptor["id"],
            descriptor["template_id"],
            descriptor["endpoint"],
            http.base_url,
            float(descriptor["fork_time_ms"]),
            http.api_key,
            http.client,
        )

    @classmethod
    async def create(
        cls,
        image: str = "python",
        api_key: str | None = None,
        base_url: str | None = None,
        id: str | None = None,  # noqa: A002  published name
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
        region: str | None = None,
    ) -> AsyncDirectSandbox:
        """Starts a sandbox; arguments and errors as the module's `create`.

        Example:
            >>> sb = await AsyncDirectSandbox.create("python", id="mine")
            >>> sb.id
            'mine'
        """
        return await create(
            image, api_key, base_url, id, network, idempotency_key, workload, resources, region
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, fork_time_ms={self.fork_time_ms:.2f})"

    async def __aenter__(self) -> AsyncDirectSandbox:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.terminate()

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
        await self._http.stream("ExecStream", self.id, [message], fold.take, read_timeout_s=wait_s)
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
        from the same byte. A server that does not know kept commands ends it with its connection.

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
        follower = AsyncFollower(self._http, self.id, request.new_command_id(), fold, message)
        return await AsyncBackgroundProcess._begin(follower)

    async def command(
        self,
        id: str,  # noqa: A002  as everywhere in this class
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> AsyncBackgroundProcess:
        """Finds a command again: one of another process, of the past, or of the fork's parent.

        Its output comes from the beginning, as far as the sandbox still has it (8 MiB); what is
        gone is counted in the handle's `lost_bytes`. A command has one reader at a time: an
        earlier one fails with `canceled`.

        Raises:
            NotFoundError: no such command, or it has ended and was not kept.

        Example:
            >>> job = await sb.exec_background("echo built")
            >>> again = await sb.command(job.id)
            >>> (await again.wait()).exit_code
            0
        """
        fold = ExecFold(0, on_stdout, on_stderr, raises_deadline=False)
        follower = AsyncFollower(self._http, self.id, request.checked_command_id(id), fold, None)
        return await AsyncBackgroundProcess._begin(follower)

    async def commands(self) -> list[CommandInfo]:
        """The commands that run, and the kept ones that ended.

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
        await self._http.stream(
            "RunCodeStream", self.id, [message], fold.take, read_timeout_s=wait_s
        )
        return fold.result()

    async def fork(
        self,
        n: int = 1,
        id: str | None = None,  # noqa: A002  published name
        *,
        partial: bool = False,
    ) -> Forked[AsyncDirectSandbox]:
        """Copies the running sandbox: memory, processes and files, all children from one instant.

        Args:
            n: how many; 0 gives an empty list.
            id: the child's id; with n > 1 each gets a number behind it.
            partial: keep the children that came up; the result's `errors` has the rest by id.

        Raises:
            AgentRunError: the server could not; then none is left, unless no answer came at all.

        Example:
            >>> a, b = await sb.fork(2)
        """
        ids = request.child_ids(n, id)
        if partial and ids:
            return await self._fork_some(ids)
        made: list[AsyncDirectSandbox] = []
        try:
            while len(made) < len(ids):
                # One request for all; a server that does not know `ids` makes one child a request.
                wanted = ids[len(made) : len(made) + 1] if made else ids
                rows = await self._fork(wanted)
                made += [AsyncDirectSandbox._of(row, self._http) for row in rows]
        except BaseException:
            for child in made:
                with contextlib.suppress(AgentRunError):
                    await child.terminate()
            raise
        return Forked(made)

    async def _fork(self, ids: list[str]) -> list[dict[str, Any]]:
        """Asks for children; a server without the route for it may have the older one."""
        body = request.fork_body(self.template, ids)
        try:
            path = f"/v1/sandboxes/{self.id}/fork"
            made = await self._http.fork(path, body, request.new_key())
        except AgentRunError as exc:
            if not failure.is_missing_route(exc):
                raise
            body = {"template": self.template, "id": ids[0], "source": self.id}
            made = await self._http.fork("/v1/fork", body, request.new_key())
        return answer.children(made, ids, self._http.api_key)

    async def set_timeout(self, timeout_seconds: int) -> int:
        """Ends the sandbox in so many seconds, replacing an earlier deadline.

        Returns:
            The deadline in unix seconds.

        Raises:
            TimeoutTooLargeError: over 86400.

        Example:
            >>> deadline = await sb.set_timeout(600)  # in ten minutes
        """
        body = {"sandbox": self.id, "timeout_seconds": request.check_timeout(timeout_seconds)}
        reply = await self._http.call("POST", "/v1/set_timeout", body)
        return answer.number(reply, "deadline_unix", self._http.api_key)

    async def pause(self) -> None:
        """Stops every process in the sandbox; nothing is lost.

        Example:
            >>> await sb.pause()
            >>> await sb.resume()
        """
        await self._http.call("POST", "/v1/pause", {"sandbox": self.id})

    async def resume(self) -> None:
        """Lets a paused sandbox go on.

        Example:
            >>> await sb.pause()
            >>> await sb.resume()
        """
        await self._http.call("POST", "/v1/resume", {"sandbox": self.id})

    async def hibernate(self) -> None:
        r"""Writes the sandbox to the server's disk and frees its memory; the next call wakes it.

        Raises:
            AgentRunError: calls are open on it, or the server could not; it goes on as it was.

        Example:
            >>> await sb.hibernate()
            >>> (await sb.exec("echo awake")).stdout
            'awake\n'
        """
        await self._http.fork(f"/v1/sandboxes/{self.id}/hibernate", {}, request.new_key())

    async def _fork_some(self, ids: list[str]) -> Forked[AsyncDirectSandbox]:
        """Asks for all at once; what the server says nothing of, it is asked for one by one."""
        body = {**request.fork_body(self.template, ids), "ids": ids, "partial": True}
        reply: Any = {"children": [], "errors": []}
        try:
            reply = await self._http.fork(f"/v1/sandboxes/{self.id}/fork", body, request.new_key())
        except AgentRunError as exc:
            if not failure.is_missing_route(exc):
                raise
        made, errors = tree.partial(reply, ids, self._http.api_key)
        for sandbox_id in tree.unsaid(ids, made, errors):
            try:
                made += await self._fork([sandbox_id])
            except AgentRunError as exc:
                errors[sandbox_id] = exc
        return Forked([AsyncDirectSandbox._of(row, self._http) for row in made], errors)

    async def get_host(self, port: int = 80) -> str:
        """A signed URL that reaches a port inside the sandbox.

        Raises:
            ValueError: the port is none, or the server gave no URL.

        Example:
            >>> url = await sb.get_host(8000)
        """
        body = {"sandbox": self.id, "port": request.check_port(port)}
        reply = await self._http.call("POST", "/v1/preview", body)
        url = answer.members(reply, self._http.api_key).get("url")
        if not isinstance(url, str) or not url:
            raise ValueError("the server gave no preview URL")
        return url

    def pty_url(self) -> str:
        """The WebSocket address of a terminal; holds no key.

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

    async def terminate(self, *, subtree: bool = False) -> None:
        """Ends the sandbox; one that is gone already is fine.

        Args:
            subtree: also ends every sandbox that was forked from it, and from those.

        Raises:
            TransportFailedError: the server could not be reached.

        Example:
            >>> await sb.terminate(subtree=True)
        """
        try:
            query = "?subtree=true" if subtree else ""
            await self._http.call("DELETE", f"/v1/sandboxes/{self.id}{query}")
        except TransportFailedError:
            raise
        except AgentRunError:
            return
