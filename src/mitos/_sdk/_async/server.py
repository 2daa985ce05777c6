"""A server that runs sandboxes: its templates, and the handles of what runs there."""

from __future__ import annotations

from typing import Any

from mitos._sdk import answer, request, settings
from mitos._sdk._async import fork as forking
from mitos._sdk._async import template as templates
from mitos._sdk._async.direct import SERVER_TIMEOUT_S, AsyncDirectSandbox
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk.value.network import Network
from mitos.errors import NotFoundError

__all__ = ["AsyncSandboxServer", "create"]

_DEFAULTS: dict[str, Any] = {"template_id": "", "endpoint": "", "fork_time_ms": 0.0}
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
    return await AsyncDirectSandbox.create(
        image, api_key, base_url, id, network, idempotency_key, workload, resources, region
    )


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

    async def drain(self, *, hibernate: bool = False) -> dict[str, Any]:
        """Has the server take no new work: creates, forks and builds are refused from now on.

        Args:
            hibernate: also hibernate every sandbox once nobody has a call open on it.

        Returns:
            As `drain_status`.

        Example:
            >>> (await server.drain())["draining"]
            True
            >>> (await server.end_drain())["draining"]
            False
        """
        query = "?hibernate=true" if hibernate else ""
        return await self._drain("POST", query)

    async def drain_status(self) -> dict[str, Any]:
        """What is left while a server is drained.

        Returns:
            `draining`, `hibernates`, and `left`: what is not done with, each with `kind`
            (`sandbox` or `template`), `id` and `why`. When it is empty, nothing is cut off by a
            stop.

        Example:
            >>> (await server.drain_status())["left"]
            []
        """
        return await self._drain("GET")

    async def end_drain(self) -> dict[str, Any]:
        """Has the server take new work again.

        Returns:
            As `drain_status`.

        Example:
            >>> (await server.end_drain())["draining"]
            False
        """
        return await self._drain("DELETE")

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
        body = request.template_body(id, init_wait_seconds, network, workload, resources)
        return await templates.create(self._http, body, idempotency_key)

    async def ensure_template(
        self,
        id: str,  # noqa: A002  published name
        init_wait_seconds: int = 5,
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """The same as `create_template`, for servers that refuse a template they have.

        Example:
            >>> (await server.ensure_template("python"))["ready"]
            True
        """
        body = request.template_body(id, init_wait_seconds, network, workload, resources)
        return await templates.ensure(self._http, body, idempotency_key)

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
        sandbox_id = request.new_id() if id is None else request.checked_id(id)
        row = await forking.from_template(self._http, template, sandbox_id, idempotency_key, region)
        return AsyncDirectSandbox._of(row, self._http)

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
            NotFoundError: no sandbox of that id runs.
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

    async def _drain(self, method: str, query: str = "") -> dict[str, Any]:
        found = answer.members(
            await self._http.call(method, f"/v1/drain{query}"), self._http.api_key
        )
        left = answer.rows(found, "left", self._http.api_key)
        return {"draining": False, "hibernates": False, **found, "left": left}

    def _handle(self, row: dict[str, Any]) -> AsyncDirectSandbox:
        found = answer.descriptor({**_DEFAULTS, **row}, self._http.api_key)
        return AsyncDirectSandbox._of(found, self._http)
