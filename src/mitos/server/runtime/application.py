"""The runtime service as an ASGI application under its path."""

from __future__ import annotations

from typing import Any

from connectrpc.request import RequestContext
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mitos.server.codec import codecs
from mitos.server.errors import connect_error
from mitos.server.gate import caller
from mitos.server.journal import OutcomeInterceptor
from mitos.server.runtime.service import RuntimeService
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants
from mitos.wire._generated.sandbox.v1.sandbox_connect import SandboxASGIApplication

__all__ = ["PATH", "Runtime", "is_addressed", "is_call"]

PATH = "/sandbox.v1.Sandbox/"

_CONTENT_TYPES = (
    "application/json",
    "application/proto",
    "application/connect+",
    "application/grpc",
)


def is_call(scope: Scope) -> bool:
    """True for a call that expects its answer, a refusal too, in the form of Connect."""
    if not is_addressed(scope) or scope["method"] != "POST":
        return False
    types = (value for name, value in scope["headers"] if name == b"content-type")
    return next(types, b"").decode("latin-1").startswith(_CONTENT_TYPES)


def is_addressed(scope: Scope) -> bool:
    """True for a request under the service's path; a WebSocket there is a terminal."""
    return bool(scope["type"] == "http" and scope["path"].startswith(PATH))


class Runtime:
    """Serves the calls.

    Args:
        tenants: whose sandboxes they are for.
        settings: limits and default timeouts.
    """

    def __init__(self, tenants: Tenants, settings: ServerSettings) -> None:
        self._calls: ASGIApp = SandboxASGIApplication(
            RuntimeService(tenants, settings),
            read_max_bytes=settings.max_message_bytes,
            codecs=codecs(),
            interceptors=[OutcomeInterceptor(), _RefusalInterceptor()],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            error = Response("use POST\n", status_code=405, headers={"Allow": "POST"})
            await error(scope, receive, send)
        elif not all(_is_text(value) for _, value in scope["headers"]):
            error = Response("headers must be UTF-8\n", status_code=400)
            await error(scope, receive, send)
        else:
            await self._calls(scope, receive, send)


class _RefusalInterceptor:
    """Answers a call that the gate refused, before any of its body is read."""

    async def on_start(self, _ctx: RequestContext[Any, Any]) -> None:
        """Ends a call that the gate did not let in.

        Raises:
            ConnectError: `unauthenticated`, `permission_denied`.
        """
        refusal = caller.refusal()
        if refusal is not None:
            raise connect_error(refusal) from refusal

    async def on_end(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        """Nothing to undo."""


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
