"""Answers requests that are cut off because the server stops: they may be sent again."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mitos.node.refusal import server_stopping
from mitos.server import errors

__all__ = ["Stopping"]


class Stopping:
    """Tells the client of a request that is cancelled to come again.

    Only the end of the server cancels requests, and this is the edge of their tasks.

    Args:
        app: serves the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            if has_begun or scope["type"] != "http":
                raise
            await errors.answer(scope, receive, send, server_stopping())
