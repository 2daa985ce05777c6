"""The server as one ASGI application: Connect under its service path, everything else Starlette.

`journal` logs each request; `keep_alive` says when a connection ends with it; `auth` looks at a
runtime call's key before its body is read.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mitos.node.node import Node
from mitos.server import ports, pty, rest
from mitos.server.auth import AuthInterceptor
from mitos.server.codec import codecs
from mitos.server.errors import envelope_response, internal_error
from mitos.server.expose import Exposure
from mitos.server.journal import Journal, OutcomeInterceptor
from mitos.server.keep_alive import KeepAlive
from mitos.server.preview import Preview
from mitos.server.runtime import RuntimeService
from mitos.server.settings import ServerSettings
from mitos.wire._generated.sandbox.v1.sandbox_connect import SandboxASGIApplication
from mitos.wire.errors import ApiError

__all__ = ["RUNTIME_PATH", "build"]

RUNTIME_PATH = "/sandbox.v1.Sandbox/"


def build(node: Node, settings: ServerSettings) -> ASGIApp:
    """The application over a started node."""
    exposure = Exposure(node)
    control_plane = Starlette(
        routes=[
            *rest.routes(node, settings),
            *pty.routes(node, settings),
            *ports.routes(settings, exposure),
        ],
        exception_handlers={
            ApiError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_bug,
        },
    )
    # A redirect would name whatever host the client claimed; clients follow none anyway.
    control_plane.router.redirect_slashes = False
    runtime = SandboxASGIApplication(
        RuntimeService(node, settings),
        read_max_bytes=settings.max_message_bytes,
        codecs=codecs(),
        interceptors=[OutcomeInterceptor(), AuthInterceptor(settings.api_key)],
    )
    hosts = Preview(node, settings.preview, exposure) if settings.preview is not None else None
    return Journal(KeepAlive(_Switch(runtime, control_plane, hosts)))


class _Switch:
    """Sends what is for a preview host there, runtime calls to Connect, the rest to Starlette."""

    def __init__(self, runtime: ASGIApp, control_plane: ASGIApp, preview: Preview | None) -> None:
        self._runtime = runtime
        self._control_plane = control_plane
        self._preview = preview

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_runtime = scope["type"] == "http" and scope["path"].startswith(RUNTIME_PATH)
        if self._preview is not None and self._preview.is_addressed(scope):
            await self._preview(scope, receive, send)
        elif not is_runtime:
            await self._control_plane(scope, receive, send)
        elif scope["method"] != "POST":
            error = Response("use POST\n", status_code=405, headers={"Allow": "POST"})
            await error(scope, receive, send)
        elif not all(_is_text(value) for _, value in scope["headers"]):
            error = Response("headers must be UTF-8\n", status_code=400)
            await error(scope, receive, send)
        else:
            await self._runtime(scope, receive, send)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


async def _answer_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    return envelope_response(exc)


async def _answer_http_error(request: Request, exc: Exception) -> Response:
    """An unknown route or method, as an envelope: never HTML."""
    assert isinstance(exc, HTTPException)
    code = "not_found" if exc.status_code == 404 else "invalid_input"
    error = ApiError(
        code,
        f"no route for {request.method} on this path",
        remediation="Check the path and the method; spec/rest.md lists the routes.",
        status=exc.status_code,
    )
    response = envelope_response(error)
    response.headers.update(exc.headers or {})
    return response


async def _answer_bug(_request: Request, exc: Exception) -> Response:
    return envelope_response(internal_error(exc))
