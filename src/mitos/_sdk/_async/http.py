"""Calls over HTTP: `/v1` routes in JSON, runtime calls in Connect's unary and streaming form.

The only file that touches the transport. Every failure comes out as `AgentRunError`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from mitos._sdk import failure, pool
from mitos._sdk.framing import FrameReader, encode_frame
from mitos._sdk.settings import checked_url

__all__ = ["AsyncHttp"]

RUNTIME_PATH = "/sandbox.v1.Sandbox/"
FORK_TIMEOUT_S = 130.0
CONNECT_TIMEOUT_S = 10.0


class AsyncHttp:
    """One server, one key.

    Args:
        base_url: the server's origin.
        api_key: sent as bearer; None or empty sends none.
        timeout_s: of a unary call.
        client: used instead of the shared one; its owner closes it.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        timeout_s: float,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        self.api_key = api_key
        self._timeout_s = timeout_s
        self._client = client
        self._is_leased = False
        self._is_closed = False

    def lease(self) -> None:
        """Keeps the shared connections open until `aclose`."""
        if self._client is None and not self._is_leased:
            pool.lease_async()
            self._is_leased = True

    async def aclose(self) -> None:
        """Lets the shared connections go; later calls still work. Idempotent."""
        self._is_closed = True
        if self._is_leased:
            self._is_leased = False
            await pool.release_async()

    def __repr__(self) -> str:
        return f"AsyncHttp({self.base_url!r})"

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """A `/v1` route; returns the decoded answer, None for an empty one.

        Raises:
            AgentRunError: the server's error, or no answer.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = await self._send(method, path, headers, body, timeout_s or self._timeout_s)
        if not response.is_success:
            raise failure.from_control_plane(response.status_code, response.content, self.api_key)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as exc:
            raise failure.invalid_response(response.content, self.api_key) from exc

    async def fork(self, path: str, body: dict[str, Any], idempotency_key: str) -> dict[str, Any]:
        """A creating route, which may take longer than others.

        Raises:
            AgentRunError: also `fork_unavailable` when it does not answer in time.
        """
        try:
            answer = await self.call(
                "POST", path, body, idempotency_key=idempotency_key, timeout_s=FORK_TIMEOUT_S
            )
        except httpx.ReadTimeout as exc:
            raise failure.fork_timed_out(FORK_TIMEOUT_S) from exc
        needed = ("id", "template_id", "endpoint", "fork_time_ms")
        if not isinstance(answer, dict) or any(name not in answer for name in needed):
            raise failure.invalid_response(json.dumps(answer).encode(), self.api_key)
        return answer

    async def unary(self, method: str, sandbox_id: str, message: dict[str, Any]) -> dict[str, Any]:
        """A unary runtime call.

        Raises:
            AgentRunError: the server's error, or no answer.
        """
        headers = {"X-Sandbox-Id": sandbox_id}
        response = await self._send(
            "POST", RUNTIME_PATH + method, headers, message, self._timeout_s
        )
        if not response.is_success:
            raise failure.from_runtime(response.status_code, response.content, self.api_key)
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError as exc:
            raise failure.invalid_response(response.content, self.api_key) from exc
        return answer if isinstance(answer, dict) else {}

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        sandbox_id: str,
        messages: list[dict[str, Any]],
        *,
        read_timeout_s: float | None,
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A streaming runtime call: the answer's messages as they come.

        Leaving the context early closes the connection, which ends the call on the server.

        Raises:
            AgentRunError: the server's error, at whatever point of the stream it comes.
        """
        headers = {"Content-Type": "application/connect+json", "X-Sandbox-Id": sandbox_id}
        async with (
            self._connection() as client,
            client.stream(
                "POST",
                self.base_url + RUNTIME_PATH + method,
                headers={**self._auth(), **headers},
                content=b"".join(encode_frame(message) for message in messages),
                timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
            ) as response,
        ):
            if not response.is_success:
                content = await response.aread()
                raise failure.from_runtime(response.status_code, content, self.api_key)
            yield self._messages(response)

    async def _messages(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        reader = FrameReader()
        # Read to the end of the body, past the end frame, so that the connection can be used again.
        async for chunk in response.aiter_bytes():
            for message in reader.feed(chunk):
                yield message
        if reader.error is not None:
            raise failure.from_connect(reader.error, self.api_key)

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        timeout_s: float,
    ) -> httpx.Response:
        async with self._connection() as client:
            return await client.request(
                method,
                self.base_url + path,
                headers={**self._auth(), **headers},
                json=body,
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        """The client for one call; the transport's errors come out as ours."""
        if not self._is_closed:
            self.lease()
        client = self._client or pool.lease_async()
        try:
            yield client
        except httpx.TransportError as exc:
            raise failure.transport_failed(exc, self.base_url, self.api_key) from exc
        finally:
            if self._client is None:
                await pool.release_async()

    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
