"""Requests to one server, and its `/v1` routes. Runtime calls are made of these in `rpc.py`.

The only file that touches the transport. Every failure comes out as `AgentRunError`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Any

import httpx

from mitos._sdk import answer, failure, pool
from mitos._sdk._loop.worker import sleep
from mitos._sdk.outage import Outage, is_restarting
from mitos._sdk.settings import checked_key, checked_url
from mitos.errors import AgentRunError

__all__ = ["AsyncHttp"]

FORK_TIMEOUT_S = 130.0
CONNECT_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 60.0
"""How long a server may take nothing of what is sent."""


class AsyncHttp:
    """One server, one key.

    Args:
        base_url: the server's origin.
        api_key: sent as bearer; None or empty sends none.
        timeout_s: of a unary call.
        client: used instead of the shared one; its owner closes it.

    Attributes:
        outage: what is known of the server's being there.
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
        self.outage = Outage()
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
        response = await self.request(method, path, headers, body, timeout_s)
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

    async def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Sends a request, and again while its server is away.

        Everything that goes through here may be repeated: it reads, sets what is set already, or
        carries an idempotency key.

        Raises:
            AgentRunError: no answer, or that of a server that is being restarted for too long.
        """
        timeout_s = timeout_s or self._timeout_s
        attempts = self.outage.attempts(may_repeat=True)
        while True:
            try:
                with self.translated():
                    response = await self._send(method, path, headers, body, timeout_s)
                self._note_answer(response)
            except AgentRunError as exc:
                delay_s = attempts.delay_after(exc)
            else:
                return response
            await sleep(delay_s)

    async def open(
        self,
        path: str,
        headers: dict[str, str],
        content: bytes | AsyncGenerator[bytes],
        *,
        read_timeout_s: float | None,
    ) -> httpx.Response:
        """Posts, and gives the answer before its body; the caller closes it.

        Nothing is sent twice: only for a connection that is refused is another one tried.

        Raises:
            TransportFailedError: no answer.
        """
        client = self._client()
        request = client.build_request(
            "POST",
            self.base_url + path,
            headers={**self._auth(), **headers},
            content=content,
            timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, write=WRITE_TIMEOUT_S),
        )
        attempts = self.outage.attempts(may_repeat=False)
        while True:
            try:
                with self.translated():
                    response = await client.send(request, stream=True)
            except AgentRunError as exc:
                delay_s = attempts.delay_after(exc)
            else:
                self.outage.has_answered = True
                return response
            await sleep(delay_s)

    def translated(self) -> AbstractContextManager[None]:
        """The transport's errors come out as `TransportFailedError`."""
        return failure.translated(self.base_url, self.api_key)

    def _note_answer(self, response: httpx.Response) -> None:
        """Notes that the server answers, unless it says that it is about to be away."""
        self.outage.has_answered = True
        if response.status_code == 503:
            error = failure.from_runtime(503, response.content, self.api_key)
            if is_restarting(error):
                raise error

    async def _send(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any] | None,
        timeout_s: float,
    ) -> httpx.Response:
        # Escaped, so that the server can say what is wrong with a text that is no Unicode.
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        return await self._client().request(
            method,
            self.base_url + path,
            headers={**self._auth(), **kind, **headers},
            content=content,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        )

    def _client(self) -> httpx.AsyncClient:
        return self.client or pool.async_client()

    def _auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
