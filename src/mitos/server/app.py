"""The server as one ASGI application.

Each request passes these layers, then one of the fronts:

    journal      logs the request
    stopping     answers it when the server ends under it
    watchdog     says where it waits, when it makes no progress
    body         ends what stalls in its body
    gate         lets the caller in, or not

A preview is recognised by its host, a runtime call by its path; Starlette routes the rest.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from mitos.node.node import RunningNode
from mitos.server import terminal
from mitos.server.body import BodyDeadline
from mitos.server.errors import envelope_response, internal_error
from mitos.server.gate.layer import Gate
from mitos.server.journal import Journal
from mitos.server.ports import expose
from mitos.server.ports.preview import PreviewHosts
from mitos.server.ports.proxy import PortProxy
from mitos.server.rest import router
from mitos.server.runtime import application
from mitos.server.runtime.application import Runtime
from mitos.server.settings import ServerSettings
from mitos.server.stopping import Stopping
from mitos.server.tenant import Tenants
from mitos.server.watchdog import RequestWatch
from mitos.wire.errors import ApiError

__all__ = ["build", "routes"]


def build(node: RunningNode, settings: ServerSettings) -> ASGIApp:
    """The application over a started node."""
    tenants = Tenants(node)
    proxy = PortProxy(tenants)
    control_plane = _control_plane(routes(node, settings, tenants, proxy))
    previews = PreviewHosts(tenants, settings.preview, proxy) if settings.preview else None
    gate = Gate(
        _Api(Runtime(tenants, settings), control_plane),
        previews,
        settings,
        is_sandbox=node.has_label,
        renders_refusal=application.is_call,
    )
    return Journal(Stopping(RequestWatch(BodyDeadline(gate, is_call=application.is_addressed))))


def routes(
    node: RunningNode, settings: ServerSettings, tenants: Tenants, proxy: PortProxy
) -> list[BaseRoute]:
    """Every route but the runtime calls'."""
    return [
        *router.routes(node, settings, tenants),
        *terminal.routes(tenants, settings),
        *expose.routes(settings, proxy),
    ]


class _Api:
    """Sends runtime calls to Connect, and the rest to the control plane."""

    def __init__(self, runtime: ASGIApp, control_plane: ASGIApp) -> None:
        self._runtime = runtime
        self._control_plane = control_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._runtime if application.is_addressed(scope) else self._control_plane
        await app(scope, receive, send)


def _control_plane(routes: list[BaseRoute]) -> ASGIApp:
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_bug,
        },
    )
    # A redirect would name whatever host the client claimed; clients follow none anyway.
    app.router.redirect_slashes = False
    return app


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
