"""Calls over HTTP: `/v1` routes in JSON, runtime calls in Connect's unary and streaming form.

The only file that touches the transport. Every failure comes out as `AgentRunError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Any, cast

import httpx

from mitos._sdk import answer, failure, pool
from mitos._sdk.framing import FrameReader, encode_frame
from mitos._sdk.settings import checked_key, checked_url
from mitos.errors import AgentRunError

__all__ = ["AsyncHttp"]

RUNTIME_PATH = "/sandbox.v1.Sandbox/"
FORK_TIMEOUT_S = 130.0
CONNECT_TIMEOUT_S = 10.0

_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""How a connection breaks that was there; the server may or may not have seen the request."""


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
        self.api_key = checked_key(api_key)
        self.client = client
        self._timeout_s = timeout_s

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
        response = await self._request(method, path, headers, body, timeout_s or self._timeout_s)
        if not response.is_success:
            raise failure.from_control_plane(response.status_code, response.content, self.api_key)
        return answer.content(response.content, self.api_key)

    async def fork(self, path: str, body: dict[str, Any], idempotency_key: str) -> Any:
        """A creating route, which may take longer than others.

        Raises:
            AgentRunError: also `fork_unavailable` when it does not answer in time.
        """
        try:
            return await self.call(
                "POST", path, body, idempotency_key=idempotency_key, timeout_s=FORK_TIMEOUT_S
            )
        except httpx.TimeoutException as exc:
            raise failure.fork_timed_out(FORK_TIMEOUT_S) from exc

    async def unary(self, method: str, sandbox_id: str, message: dict[str, Any]) -> dict[str, Any]:
        """A unary runtime call.

        Raises:
            AgentRunError: the server's error, or no answer.
        """
        headers = {"X-Sandbox-Id": sandbox_id}
        response = await self._request(
            "POST", RUNTIME_PATH + method, headers, message, self._timeout_s
        )
        if not response.is_success:
            raise failure.from_runtime(response.status_code, response.content, self.api_key)
        return answer.members(answer.content(response.content, self.api_key), self.api_key)

    async def stream(
        self,
        method: str,
        sandbox_id: str,
        messages: Iterable[dict[str, Any]],
        take: Callable[[dict[str, Any]], object],
        *,
        read_timeout_s: float,
        headers: Mapping[str, str] | None = None,
        take_response: Callable[[httpx.Response], None] | None = None,
    ) -> None:
        """A streaming runtime call; `take` gets each message of the answer as it comes.

        It is sent once, whatever happens: the server may have begun. When `take` raises, the
        connection is closed, which ends the call on the server. `take_response` gets a good answer
        first, before anything of it is read.

        A list goes out in one; anything else is taken piece by piece as the server reads.

        Raises:
            AgentRunError: the server's error, at whatever point of the stream it comes;
                `truncated_stream` when the stream does not come to its end.
        """
        found = self.messages(
            method,
            sandbox_id,
            messages,
            read_timeout_s=read_timeout_s,
            headers=headers,
            take_response=take_response,
        )
        async with aclosing(found) as answers:
            async for message in answers:
                take(message)

    async def messages(
        self,
        method: str,
        sandbox_id: str,
        messages: Iterable[dict[str, Any]],
        *,
        read_timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        take_response: Callable[[httpx.Response], None] | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """The same, as the messages themselves; closing the generator ends the call."""
        content: bytes | AsyncGenerator[bytes] = (
            b"".join(map(encode_frame, messages))
            if isinstance(messages, list)
            else _frames(messages)
        )
        client = self.client or pool.async_client()
        request = client.build_request(
            "POST",
            self.base_url + RUNTIME_PATH + method,
            headers={
                **self._auth(),
                "Content-Type": "application/connect+json",
                "X-Sandbox-Id": sandbox_id,
                **(headers or {}),
            },
            content=content,
            timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        with self._translated():
            response = await client.send(request, stream=True)
        try:
            if take_response is not None and response.is_success:
                take_response(response)
            async with aclosing(self._receive(response, method)) as found:
                async for message in found:
                    yield message
        finally:
            await response.aclose()

    async def _receive(
        self, response: httpx.Response, method: str
    ) -> AsyncGenerator[dict[str, Any]]:
        if not response.is_success or response.headers.get("content-type", "").startswith("text/"):
            with self._translated():
                body = await response.aread()
            if response.is_success:
                raise failure.invalid_response(body, self.api_key)
            raise failure.from_runtime(response.status_code, body, self.api_key)
        reader = FrameReader()
        body_chunks = cast("AsyncGenerator[bytes]", response.aiter_bytes())
        async with aclosing(body_chunks) as chunks:
            # Up to the end of the body, so that the connection can be used again. Nothing may
            # come after the end of the stream; if something does, the rest is not waited for.
            while (chunk := await self._next(chunks, reader)) and not reader.ended:
                for message in reader.feed(chunk):
                    yield message
        if reader.error is not None:
            raise failure.from_connect(reader.error, self.api_key)
        if not reader.ended:
            raise failure.truncated(method)

    async def _next(self, chunks: AsyncGenerator[bytes], reader: FrameReader) -> bytes:
        """The next piece of a body; empty at its end, and for what breaks after the last frame."""
        try:
            with self._translated():
                return await anext(chunks, b"")
        except AgentRunError:
            if reader.ended:
                return b""
            raise

    async def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        timeout_s: float,
    ) -> httpx.Response:
        """Sends a request, and once more when the connection broke before an answer.

        Everything that goes through here may be repeated: it reads, sets what is set already, or
        carries an idempotency key.
        """
        with self._translated():
            try:
                return await self._send(method, path, headers, body, timeout_s)
            except _BROKEN:
                return await self._send(method, path, headers, body, timeout_s)

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        timeout_s: float,
    ) -> httpx.Response:
        client = self.client or pool.async_client()
        return await client.request(
            method,
            self.base_url + path,
            headers={**self._auth(), **headers},
            json=body,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        )

    def _translated(self) -> AbstractContextManager[None]:
        return failure.translated(self.base_url, self.api_key)

    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


async def _frames(messages: Iterable[dict[str, Any]]) -> AsyncGenerator[bytes]:
    for message in messages:
        yield encode_frame(message)
