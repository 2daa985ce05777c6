"""Says `Connection: close` on an HTTP/1.1 answer that is sent before all of the body has come.

A connection can be used again only when both sides have sent everything. An answer that does not
wait for the body (to a wrong key, for example) leaves the rest of the body on the wire, and the
server closes the connection. A client that is not told so sends its next request into a closed
connection.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["KeepAlive"]

WAIT_BYTES = 64 * 1024
"""The rest of a body up to this size is waited for: that costs less than a new connection."""

WAIT_S = 1.0


class KeepAlive:
    """Lets clients use connections again, or tells them that they cannot."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["http_version"].startswith("1"):
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and not await body.is_complete():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, body.receive, tell)


class _Body:
    """A request's body, and whether all of it has come."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._turn = asyncio.Lock()
        length = headers.get("content-length", "")
        chunked = "transfer-encoding" in headers
        self._is_short = not chunked and (int(length) if length.isdecimal() else 0) <= WAIT_BYTES
        self._ended = not chunked and length in ("", "0")

    async def receive(self) -> Message:
        """The next message, for the application."""
        async with self._turn:
            return self._kept.popleft() if self._kept else await self._next()

    async def is_complete(self) -> bool:
        """True once the last byte is here; waits a moment for a short body."""
        try:
            async with asyncio.timeout(WAIT_S):
                while self._is_short and not self._ended:
                    await self._keep_one()
        except TimeoutError:
            pass
        return self._ended

    async def _keep_one(self) -> None:
        async with self._turn:
            if not self._ended:
                self._kept.append(await self._next())

    async def _next(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._ended = True
        return message
