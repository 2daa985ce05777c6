"""Direct mode: sandboxes of one server, without a cluster.

A shell: each method builds a request, awaits once and folds the answer; what can be decided without
I/O is decided in the pure files beside this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from mitos import pty as terminal
from mitos._sdk import settings
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk.folding import CodeFold, ExecFold, file_info, truncated
from mitos._sdk.framing import decode_bytes, encode_bytes
from mitos._sdk.request import (
    check_port,
    check_timeout,
    checked_id,
    child_ids,
    exec_message,
    new_id,
    new_key,
    template_body,
)
from mitos.errors import AgentRunError
from mitos.types import ExecResult, Execution, FileInfo, Network, Result

__all__ = ["AsyncDirectSandbox", "AsyncDirectSandboxFiles", "AsyncSandboxServer", "create"]

SERVER_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 600.0
SANDBOX_TIMEOUT_S = 30.0
EXEC_GRACE_S = 5
CODE_GRACE_S = 10
WRITE_PIECE_BYTES = 1 << 20


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
        workload: a process to start in the template.
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
    sandbox_id = new_id() if id is None else checked_id(id)
    server = AsyncSandboxServer.from_auth(api_key, base_url)
    try:
        await server.ensure_template(image, network=network, workload=workload, resources=resources)
        return await server.fork(image, sandbox_id, idempotency_key, region)
    finally:
        await server.aclose()


class AsyncSandboxServer:
    """A server that runs sandboxes.

    Args:
        url: its origin.
        api_key: its key; not looked up anywhere else.
    """

    def __init__(self, url: str = settings.DEFAULT_BASE_URL, api_key: str | None = None) -> None:
        self._http = AsyncHttp(url, api_key, timeout_s=SERVER_TIMEOUT_S)
        self.url = self._http.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> AsyncSandboxServer:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @classmethod
    def from_auth(
        cls, api_key: str | None = None, base_url: str | None = None
    ) -> AsyncSandboxServer:
        """The server that arguments, environment and credential file name, in that order.

        Raises:
            AgentRunError: `missing_base_url`.
        """
        found = settings.resolve(api_key, base_url)
        return cls(found.base_url, found.api_key)

    async def aclose(self) -> None:
        """Lets connections go. Idempotent; the server stays usable."""
        await self._http.aclose()

    async def health(self) -> dict[str, Any]:
        """How the server is: `status`, `mock`, and how many templates and sandboxes it has."""
        return dict(await self._http.call("GET", "/v1/health"))

    async def list_templates(self) -> list[dict[str, Any]]:
        """The templates sandboxes can be started from."""
        return list(await self._http.call("GET", "/v1/templates") or [])

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
        """
        optional = {
            "network": None if network is None else network.to_dict(),
            "workload": workload,
            "resources": resources,
        }
        body = template_body(id, init_wait_seconds, optional)
        answer = await self._http.call(
            "POST",
            "/v1/templates",
            body,
            idempotency_key=idempotency_key,
            timeout_s=BUILD_TIMEOUT_S,
        )
        return dict(answer or {})

    async def ensure_template(
        self,
        id: str,  # noqa: A002  published name
        init_wait_seconds: int = 5,
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """The same; a server that answers "exists already" is fine."""
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
        """
        body: dict[str, Any] = {
            "template": template,
            "id": new_id() if id is None else checked_id(id),
        }
        if region:
            body["region"] = region
        answer = await self._http.fork("/v1/fork", body, idempotency_key or new_key())
        return AsyncDirectSandbox.of(answer, self._http)

    async def list_sandboxes(self) -> list[dict[str, Any]]:
        """The sandboxes that run."""
        answer = await self._http.call("GET", "/v1/sandboxes")
        rows = answer.get("sandboxes") if isinstance(answer, dict) else answer
        return list(rows or [])


class AsyncDirectSandboxFiles:
    """The files of a sandbox. Relative paths resolve against `/workspace`."""

    def __init__(self, sandbox_id: str, http: AsyncHttp) -> None:
        self._id = sandbox_id
        self._http = http

    async def read(self, path: str) -> str:
        """A file as text: UTF-8, undecodable bytes replaced.

        Raises:
            NotFoundError: no such file.

        Example:
            >>> await sb.files.read("/workspace/plan.txt")
            'draft'
        """
        return (await self.read_bytes(path)).decode("utf-8", "replace")

    async def read_bytes(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            NotFoundError: no such file.
            TruncatedStreamError: the answer ended before the file did.
        """
        content, is_whole = bytearray(), False
        async with self._http.stream(
            "ReadFile", self._id, [{"path": path}], read_timeout_s=None
        ) as messages:
            async for message in messages:
                content += decode_bytes(message.get("data", ""))
                is_whole = is_whole or bool(message.get("eof"))
        if not is_whole:
            raise truncated("file")
        return bytes(content)

    async def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Replaces a file in one step, making parents as needed; `mode` counts for a new file.

        Raises:
            AgentRunError: the path is a directory, the sandbox is out of space, …

        Example:
            >>> await sb.files.write("/workspace/plan.txt", "draft")
        """
        data = content.encode() if isinstance(content, str) else bytes(content)
        messages: list[dict[str, Any]] = [{"open": {"path": path, "mode": mode}}]
        messages += [
            {"data": encode_bytes(data[start : start + WRITE_PIECE_BYTES])}
            for start in range(0, max(len(data), 1), WRITE_PIECE_BYTES)
        ]
        async with self._http.stream(
            "WriteFile", self._id, messages, read_timeout_s=None
        ) as answers:
            async for _ in answers:
                pass

    async def list(self, path: str = "/") -> list[FileInfo]:
        """The entries of a directory, one level.

        Raises:
            NotFoundError: no such directory.
        """
        answer = await self._http.unary("List", self._id, {"parent": path})
        return [file_info(entry) for entry in answer.get("entries", [])]

    async def exists(self, path: str) -> bool:
        """True when there is something at the path."""
        try:
            await self._http.unary("List", self._id, {"parent": path})
        except AgentRunError as exc:
            if exc.status == 404 and exc.code == "not_found" and "sandbox" not in exc.context:
                return False
            if "not a directory" in exc.cause.lower():
                return True
            raise
        return True

    async def remove(self, path: str) -> None:
        """Removes a file or a whole directory; a missing path is fine."""
        await self._http.unary("Remove", self._id, {"path": path})

    async def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing one is fine."""
        await self._http.unary("Mkdir", self._id, {"path": path})


class AsyncDirectSandbox:
    """A sandbox of a server. A context manager: leaving it terminates the sandbox.

    Attributes:
        id: its id.
        template: the template it came from.
        endpoint: the origin its server says it serves it at.
        fork_time_ms: how long the server took to bring it up, in milliseconds.
        files: its files.
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
        self.id = id
        self.template = template
        self.endpoint = endpoint
        self.fork_time_ms = fork_time_ms
        self._http = AsyncHttp(server_url, api_key, timeout_s=SANDBOX_TIMEOUT_S, client=_http)
        self.files = AsyncDirectSandboxFiles(id, self._http)

    @classmethod
    def of(cls, descriptor: dict[str, Any], http: AsyncHttp) -> AsyncDirectSandbox:
        """The handle of a sandbox a server has just described."""
        handle = cls(
            str(descriptor["id"]),
            str(descriptor["template_id"]),
            str(descriptor["endpoint"]),
            http.base_url,
            float(descriptor["fork_time_ms"]),
            http.api_key,
        )
        handle._http.lease()
        return handle

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
        request = exec_message(command, timeout, cwd, env)
        async with self._http.stream(
            "ExecStream", self.id, [request], read_timeout_s=max(timeout, 30) + EXEC_GRACE_S
        ) as messages:
            async for message in messages:
                fold.take(message)
        return fold.result()

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
            language: `python`.
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
        request = {"code": code, "language": language, "timeoutSeconds": check_timeout(timeout)}
        async with self._http.stream(
            "RunCodeStream", self.id, [request], read_timeout_s=max(timeout, 60) + CODE_GRACE_S
        ) as messages:
            async for message in messages:
                fold.take(message)
        return fold.result()

    async def fork(
        self,
        n: int = 1,
        id: str | None = None,  # noqa: A002  published name
    ) -> list[AsyncDirectSandbox]:
        """Copies the running sandbox: memory, processes and files, all children from one instant.

        Args:
            n: how many; 0 gives an empty list.
            id: the child's id; with n > 1 each gets a number behind it.

        Raises:
            AgentRunError: the server could not; then it made none.

        Example:
            >>> a, b = await sb.fork(2)
        """
        ids = child_ids(n, id)
        if not ids:
            return []
        path = f"/v1/sandboxes/{self.id}/fork"
        body: dict[str, Any] = {"id": ids[0], "template": self.template, "pause_source": True}
        if n > 1:
            body["ids"] = ids
        answer = await self._http.fork(path, body, new_key())
        rows = answer.get("children") or [answer]
        for child_id in ids[len(rows) :]:
            # A server that does not know `ids` makes one child per request.
            body = {"id": child_id, "template": self.template, "pause_source": True}
            rows.append(await self._http.fork(path, body, new_key()))
        return [AsyncDirectSandbox.of(row, self._http) for row in rows]

    async def set_timeout(self, timeout_seconds: int) -> int:
        """Ends the sandbox in so many seconds, replacing an earlier deadline.

        Returns:
            The deadline in unix seconds.

        Raises:
            TimeoutTooLargeError: over 86400.
        """
        body = {"sandbox": self.id, "timeout_seconds": check_timeout(timeout_seconds)}
        answer = await self._http.call("POST", "/v1/set_timeout", body)
        return int((answer or {}).get("deadline_unix", 0))

    async def pause(self) -> None:
        """Stops every process in the sandbox; nothing is lost."""
        await self._http.call("POST", "/v1/pause", {"sandbox": self.id})

    async def resume(self) -> None:
        """Lets a paused sandbox go on."""
        await self._http.call("POST", "/v1/resume", {"sandbox": self.id})

    async def get_host(self, port: int = 80) -> str:
        """A signed URL that reaches a port inside the sandbox.

        Raises:
            ValueError: the port is none, or the server gave no URL.
        """
        body = {"sandbox": self.id, "port": check_port(port)}
        answer = await self._http.call("POST", "/v1/preview", body)
        url = str((answer or {}).get("url") or "")
        if not url:
            raise ValueError("the server gave no preview URL")
        return url

    def pty_url(self) -> str:
        """The WebSocket address of a terminal; holds no key."""
        origin = self._http.base_url.replace("http", "ws", 1)
        return f"{origin}/sandbox.v1.Sandbox/Exec?{urlencode({'sandbox': self.id})}"

    async def create_pty(
        self, on_data: Callable[[bytes], None], cols: int = 80, rows: int = 24
    ) -> terminal.AsyncPtyHandle:
        """Opens a terminal with a shell.

        Args:
            on_data: called with what the terminal shows, as bytes.
            cols: width in characters.
            rows: height in characters.
        """
        return await terminal.AsyncPtyHandle.connect(
            self.pty_url(), self._http.api_key, on_data, cols, rows
        )

    async def terminate(self) -> None:
        """Ends the sandbox; one that is gone already is fine.

        Raises:
            AgentRunError: the server could not be reached.
        """
        try:
            await self._http.call("DELETE", f"/v1/sandboxes/{self.id}")
        except AgentRunError as exc:
            if exc.status is None:
                raise
        finally:
            await self._http.aclose()
