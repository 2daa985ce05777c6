"""Requests given straight to the application, without a port: for many at once, and exact ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp

__all__ = ["Answer", "ask"]

_WEBSOCKET = {"upgrade": "websocket", "sec-websocket-version": "13"}


@dataclass
class Answer:
    """What the application answered.

    Attributes:
        status: 101 for a WebSocket that was opened, 0 while there is none.
        was_read: it asked for the request's body.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    was_read: bool = False

    def header(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    *,
    body: bytes = b"",
    server: tuple[str, int] = ("127.0.0.1", 8080),
) -> Answer:
    """One request; the method `WEBSOCKET` is a handshake."""
    answer = Answer()
    path, _, query = target.partition("?")
    is_websocket = method == "WEBSOCKET"
    sent = {"host": "127.0.0.1:8080", **(_WEBSOCKET if is_websocket else {}), **(headers or {})}
    scope: dict[str, Any] = {
        "type": "websocket" if is_websocket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "scheme": "ws" if is_websocket else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(key.lower().encode(), value.encode()) for key, value in sent.items()],
        "client": ("127.0.0.1", 50_000),
        "server": server,
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    scope |= {"subprotocols": ["connect.sandbox.v1"]} if is_websocket else {"method": method}

    async def receive() -> MutableMapping[str, Any]:
        if answer.was_read:
            await asyncio.Event().wait()  # the client stays, and says no more
        answer.was_read = True
        if is_websocket:
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                answer.status = message["status"]
                answer.headers = [(k.decode(), v.decode()) for k, v in message["headers"]]
            case "http.response.body" | "websocket.http.response.body":
                answer.body += message.get("body", b"")
            case "websocket.accept":
                answer.status = 101
            case "websocket.close" if not answer.status:
                answer.status = 403

    await app(scope, receive, send)
    return answer
