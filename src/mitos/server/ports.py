"""The expose route: a port inside a sandbox, under a path of the control plane."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from mitos.server.auth import authorize
from mitos.server.expose import Exposure, Target
from mitos.server.journal import note_operation, note_sandbox
from mitos.server.preview import answer_error, query_token, without_token
from mitos.server.settings import ServerSettings
from mitos.wire import preview
from mitos.wire.errors import ApiError
from mitos.wire.ids import is_valid_id

__all__ = ["routes"]

_PATH = "/v1/sandboxes/{id}/expose/{port}"


def routes(settings: ServerSettings, exposure: Exposure) -> list[BaseRoute]:
    """The route in its four forms: with and without a path below, HTTP and WebSocket."""
    endpoint = _Expose(settings, exposure)
    return [
        kind(path, endpoint)
        for path in (_PATH, _PATH + "/{below:path}")
        for kind in (Route, WebSocketRoute)
    ]


class _Expose:
    """Checks who asks, takes the prefix off the path, and carries the request to the port."""

    def __init__(self, settings: ServerSettings, exposure: Exposure) -> None:
        self._settings = settings
        self._exposure = exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_operation("/v1/sandboxes/*/expose")
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            target = self._target(scope)
            await self._exposure.carry(scope, receive, watch, target)
        except ApiError as exc:
            if started:
                raise
            if exc.code == "not_found":
                exc.status = 502  # the route is there; what is behind it is not
            await answer_error(scope, receive, send, exc)

    def _target(self, scope: Scope) -> Target:
        parameters = HTTPConnection(scope).path_params
        sandbox_id, port = parameters["id"], parameters["port"]
        self._authorize(scope, sandbox_id, port)
        if not is_valid_id(sandbox_id):
            raise ApiError("invalid_input", "the sandbox id is not allowed")
        note_sandbox(sandbox_id)
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535):
            raise ApiError("invalid_input", "the port must be a number from 1 to 65535")
        # The fifth slash begins what the port sees: /v1/sandboxes/<id>/expose/<port>/below
        below = b"/".join(scope["raw_path"].split(b"/")[6:])
        return Target(sandbox_id, int(port), without_token(scope, b"/" + below))

    def _authorize(self, scope: Scope, sandbox_id: str, port: str) -> None:
        """Lets in who has the server's key, or a preview token for this very port."""
        token = query_token(scope)
        if token and self._settings.preview is not None:
            try:
                grant = preview.verify(self._settings.preview.secret, token, now_unix=time.time())
            except preview.GrantError as exc:
                raise ApiError("unauthorized", "the token cannot be used", cause=str(exc)) from exc
            if (grant.sandbox_id, str(grant.port)) != (sandbox_id, port):
                raise ApiError("forbidden", "the token is for another sandbox or port")
            return
        authorize(Headers(scope=scope).get("authorization"), self._settings.api_key)
