"""Direct mode: the handle of one server's sandbox, without a cluster.

Adds the calls of `/v1` to those of `runtime.py`: how a sandbox is made, forked, stopped and ended,
its checkpoints, and what it has to do with the sandboxes it was forked from or into.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from mitos._sdk import answer, request, settings, tree
from mitos._sdk._async import fork as forking
from mitos._sdk._async import template as templates
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk._async.runtime import AsyncRuntime
from mitos._sdk.value.file import FileDiff
from mitos._sdk.value.fork import Checkpoint, Forked, Relative
from mitos._sdk.value.network import Network
from mitos.errors import AgentRunError, TransportFailedError

__all__ = ["SERVER_TIMEOUT_S", "AsyncDirectSandbox"]

SERVER_TIMEOUT_S = 60.0
SANDBOX_TIMEOUT_S = 30.0

DIFF_TIMEOUT_S = 600.0
"""Both sandboxes read all their files for a diff."""


class AsyncDirectSandbox(AsyncRuntime):
    r"""A sandbox of a server. A context manager: leaving it terminates the sandbox.

    Attributes:
        id: its id; another one after `promote`.
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
        http = AsyncHttp(server_url, api_key, timeout_s=SANDBOX_TIMEOUT_S, client=_http)
        super().__init__(http, id)
        self.template = template
        self.endpoint = endpoint
        self.fork_time_ms = fork_time_ms

    @classmethod
    def _of(cls, descriptor: dict[str, Any], http: AsyncHttp) -> AsyncDirectSandbox:
        """The handle of a sandbox that a server has just described."""
        made = cls(
            descriptor["id"],
            descriptor["template_id"],
            descriptor["endpoint"],
            http.base_url,
            float(descriptor["fork_time_ms"]),
            http.api_key,
            http.client,
        )
        made._http.outage = http.outage
        return made

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
        """Starts a sandbox; arguments and errors as `mitos.create`.

        Example:
            >>> sb = await AsyncDirectSandbox.create("python", id="mine")
            >>> sb.id
            'mine'
        """
        sandbox_id = request.new_id() if id is None else request.checked_id(id)
        found = settings.resolve(api_key, base_url)
        http = AsyncHttp(found.base_url, found.api_key, timeout_s=SERVER_TIMEOUT_S)
        body = request.template_body(image, network=network, workload=workload, resources=resources)
        await templates.ensure(http, body, None)
        row = await forking.from_template(http, image, sandbox_id, idempotency_key, region)
        return AsyncDirectSandbox._of(row, http)

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
            AgentRunError: not all came up. Those that did are ended again; only when no answer
                came at all may some be left.

        Example:
            >>> a, b = await sb.fork(2)
        """
        ids = request.child_ids(n, id)
        errors: dict[str, AgentRunError] = {}
        if partial and ids:
            rows, errors = await forking.some_children(self._http, self.id, self.template, ids)
        else:
            rows = await forking.all_children(self._http, self.id, self.template, ids)
        return Forked([AsyncDirectSandbox._of(row, self._http) for row in rows], errors)

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
            AgentRunError: calls are open on it, or the server could not; it runs on unchanged.

        Example:
            >>> await sb.hibernate()
            >>> (await sb.exec("echo awake")).stdout
            'awake\n'
        """
        await self._http.fork(f"/v1/sandboxes/{self.id}/hibernate", {}, request.new_key())

    async def get_host(self, port: int = 80) -> str:
        """A signed URL that reaches a port inside the sandbox.

        Raises:
            ValueError: the port is not one from 1 to 65535, or the server gave no URL.

        Example:
            >>> url = await sb.get_host(8000)
        """
        body = {"sandbox": self.id, "port": request.check_port(port)}
        reply = await self._http.call("POST", "/v1/preview", body)
        url = answer.members(reply, self._http.api_key).get("url")
        if not isinstance(url, str) or not url:
            raise ValueError("the server gave no preview URL")
        return url

    async def tree(self) -> list[Relative]:
        """All sandboxes related to this one by forks, ended ones included; oldest first.

        Example:
            >>> a, b = await sb.fork(2)
            >>> [each.phase for each in await sb.tree()]
            ['Ready', 'Ready', 'Ready']
        """
        reply = await self._http.call("GET", f"/v1/sandboxes/{self.id}/tree")
        return tree.tree(reply, self._http.api_key)

    async def checkpoint(self, name: str = "") -> Checkpoint:
        """Keeps a snapshot to go back to; the sandbox runs on.

        Args:
            name: a label of at most 256 characters.

        Raises:
            AgentRunError: `quota_exceeded` when it has as many as it may.

        Example:
            >>> before = await sb.checkpoint("before the upgrade")
            >>> await sb.restore(before)
        """
        path = f"/v1/sandboxes/{self.id}/checkpoints"
        reply = await self._http.fork(path, {"name": name}, request.new_key())
        return tree.checkpoint(reply, self._http.api_key)

    async def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of this sandbox, oldest first.

        Example:
            >>> kept = await sb.checkpoint("first")
            >>> [each.name for each in await sb.checkpoints()]
            ['first']
        """
        reply = await self._http.call("GET", f"/v1/sandboxes/{self.id}/checkpoints")
        return tree.checkpoints(reply, self._http.api_key)

    async def delete_checkpoint(self, checkpoint: Checkpoint | str) -> None:
        """Removes a checkpoint, given whole or by its id.

        Raises:
            NotFoundError: it has no such checkpoint.

        Example:
            >>> kept = await sb.checkpoint()
            >>> await sb.delete_checkpoint(kept)
        """
        path = f"/v1/sandboxes/{self.id}/checkpoints/{tree.checkpoint_id(checkpoint)}"
        await self._http.call("DELETE", path)

    async def restore(self, checkpoint: Checkpoint | str) -> None:
        """Puts the sandbox back to a checkpoint, given whole or by its id; it keeps its own id.

        Calls that are open on it end with `canceled`.

        Raises:
            NotFoundError: it has no such checkpoint.

        Example:
            >>> before = await sb.checkpoint()
            >>> await sb.files.write("/workspace/new", "")
            >>> await sb.restore(before)
            >>> await sb.files.exists("/workspace/new")
            False
        """
        body = {"checkpoint": tree.checkpoint_id(checkpoint)}
        await self._http.fork(f"/v1/sandboxes/{self.id}/restore", body, request.new_key())

    async def diff(self, other: AsyncDirectSandbox | str) -> FileDiff:
        """The files that another sandbox has added, removed and modified, compared to this one.

        Args:
            other: a sandbox related to this one by forks, or its id.

        Example:
            >>> a, b = await sb.fork(2)
            >>> await b.files.write("/workspace/new", "")
            >>> (await a.diff(b)).added
            ['/workspace/new']
        """
        other_id = other if isinstance(other, str) else other.id
        path = f"/v1/sandboxes/{self.id}/diff?with={request.checked_id(other_id)}"
        reply = await self._http.call("GET", path, timeout_s=DIFF_TIMEOUT_S)
        return tree.diff(reply, self._http.api_key)

    async def promote(self) -> None:
        """Takes the parent's place: the parent ends, and this sandbox gets its id.

        Raises:
            AgentRunError: it has no parent, is paused, or another sandbox has that id.

        Example:
            >>> (child,) = await sb.fork()
            >>> await child.promote()
            >>> child.id == sb.id
            True
        """
        path = f"/v1/sandboxes/{self.id}/promote"
        reply = await self._http.fork(path, {}, request.new_key())
        self._rpc.sandbox_id = answer.descriptor(reply, self._http.api_key)["id"]

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
