"""The server's log: a line for each request, with what was called, on which sandbox, how it ended.

Never a key, a command, a path inside a sandbox or content. Whatever a client sent is only written
once it is known to be harmless: the method of the service, a route, an id that matches its pattern.
Each answer carries the line's number as `X-Request-Id`.
"""

from __future__ import annotations

import contextvars
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mitos.wire.errors import ApiError
from mitos.wire.ids import is_valid_id

__all__ = [
    "Journal",
    "OutcomeInterceptor",
    "current_request",
    "note_code",
    "note_operation",
    "note_sandbox",
]

_log = logging.getLogger(__name__)

_STATUS_MESSAGES = ("http.response.start", "websocket.http.response.start")
_UNKNOWN = "-"


@dataclass(slots=True)
class _Entry:
    """What the code that serves a request learns about it."""

    number: str
    operation: str
    sandbox: str = _UNKNOWN
    code: str = _UNKNOWN

    def name(self) -> str:
        """The request, for the log."""
        return f"request={self.number} op={self.operation} sandbox={self.sandbox}"


_entry: contextvars.ContextVar[_Entry] = contextvars.ContextVar("mitos-request")


def current_request() -> Callable[[], str]:
    """Gives the name of the current request in the log, as far as it is known when asked."""
    entry = _entry.get(None)
    return entry.name if entry is not None else lambda: "a request"


def note_sandbox(sandbox_id: str) -> None:
    """Names the sandbox of the current request; the first one named counts.

    Preconditions: the id matches the pattern.
    """
    entry = _entry.get(None)
    if entry is not None and entry.sandbox == _UNKNOWN:
        entry.sandbox = sandbox_id


def note_operation(operation: str) -> None:
    """Names what the current request does, where its path is the client's own affair."""
    entry = _entry.get(None)
    if entry is not None:
        entry.operation = operation


def note_code(code: str) -> None:
    """Says how the current request failed; the first failure counts."""
    entry = _entry.get(None)
    if entry is not None and entry.code == _UNKNOWN:
        entry.code = code


class OutcomeInterceptor:
    """Notes how a runtime call failed: a stream that fails has the HTTP status 200."""

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        """Nothing to remember."""

    async def on_end(
        self, _token: None, _ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        """Notes the Connect code where ours is not known."""
        if error is not None:
            note_code(error.code.value if isinstance(error, ConnectError) else "internal")


class Journal:
    """Writes the line when a request has ended, and puts its number into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        number, started, status = secrets.token_hex(6), time.perf_counter(), 0
        entry = _Entry(number, _operation(scope["path"]), _named_sandbox(scope))
        _entry.set(entry)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] in _STATUS_MESSAGES:
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ApiError as exc:
            note_code(exc.code)  # an answer had begun: that it breaks off is all a client can see
        except Exception:  # noqa: BLE001  the connection ends; nobody else may
            note_code("internal")
            _log.exception("request=%s failed", number)
        finally:
            _log.info(
                "request=%s method=%s op=%s sandbox=%s status=%d code=%s ms=%.1f",
                number,
                _plain(scope.get("method", "WEBSOCKET")),
                entry.operation,
                entry.sandbox,
                status,
                entry.code,
                (time.perf_counter() - started) * 1000,
            )


def _named_sandbox(scope: Scope) -> str:
    """The sandbox that the request itself names: in its header, its path or its query."""
    parts = scope["path"].split("/")
    candidates = [
        *(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-sandbox-id"),
        *(parts[3:4] if parts[1:3] == ["v1", "sandboxes"] else []),
        *parse_qs(scope["query_string"].decode("latin-1")).get("sandbox", []),
    ]
    return next(filter(is_valid_id, candidates), _UNKNOWN)


def _operation(path: str) -> str:
    """The route without ids: `/v1/sandboxes/abc/fork` is logged as `/v1/sandboxes/*/fork`."""
    parts = path.split("/")
    if parts[1:3] in (["v1", "sandboxes"], ["v1", "templates"]) and len(parts) > 3:
        parts[3] = "*"
    return _plain("/".join(parts))


def _plain(text: str) -> str:
    """Printable ASCII without blanks: a client must not write lines or fields of its own."""
    return re.sub(r"[^!-~]", "?", text[:80])
