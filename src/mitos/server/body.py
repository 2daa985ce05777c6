"""A request's body has to keep coming: a client that stalls in it gives up its request.

The streams of the runtime service are left out: their messages come when there is something to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mitos.wire.errors import ApiError

__all__ = ["BODY_STALL_S", "BodyDeadline", "stalled"]

BODY_STALL_S = 60.0
"""How long a client may send nothing of a body."""

BODY_S = 3600.0
"""How long a body may take in all."""

_STREAMS = (b"application/connect+", b"application/grpc")


class BodyDeadline:
    """An ASGI layer: for who reads the body, a stall is an error.

    Args:
        app: serves the requests.
        is_call: says which requests are for the runtime service.
    """

    def __init__(self, app: ASGIApp, is_call: Callable[[Scope], bool]) -> None:
        self._app = app
        self._is_call = is_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not (_is_stream(scope) and self._is_call(scope)):
            receive = _Body(receive).receive
        await self._app(scope, receive, send)


class _Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_more = True
        self._until = asyncio.get_running_loop().time() + BODY_S

    async def receive(self) -> Message:
        """The next message.

        Raises:
            ApiError: `canceled`, the body does not come on.
        """
        if not self._has_more:
            return await self._receive()
        left_s = self._until - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(BODY_STALL_S, left_s)):
                message = await self._receive()
        except TimeoutError:
            raise stalled() from None
        self._has_more = message.get("more_body", False)
        return message


def stalled() -> ApiError:
    """The error for a client that does not send on."""
    return ApiError(
        "canceled",
        "the rest of the request did not come in time",
        remediation="Send the request again, without a pause in its body.",
        status=408,
    )


def _is_stream(scope: Scope) -> bool:
    types = (value for name, value in scope["headers"] if name == b"content-type")
    return next(types, b"").startswith(_STREAMS)
