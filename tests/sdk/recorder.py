"""An observer in front of a real server: every request as it came in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Recorded", "Recorder"]


@dataclass
class Recorded:
    """A request as it came in."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def route(self) -> tuple[str, str]:
        """The route, ids left out."""
        return self.method, re.sub(r"^(/v1/sandboxes/)[^/]+", r"\1*", self.path)


class Recorder:
    """Keeps every request, and hands it on."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []

    def around(self, application: ASGIApp) -> ASGIApp:
        """The application, observed."""

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await application(scope, receive, send)
                return
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            query = scope["query_string"].decode()
            entry = Recorded(scope.get("method", "GET"), scope["path"], query, headers)
            self.requests.append(entry)

            async def heard() -> Message:
                message = await receive()
                entry.body += message.get("body", b"")
                return message

            await application(scope, heard, send)

        return observed
