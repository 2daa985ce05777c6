"""The expose route: a port inside a sandbox, under a path of the API's own origin."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from mitos.server.gate.layer import EXPOSE_PATH
from mitos.server.journal import note_sandbox
from mitos.server.ports.proxy import PortProxy, answered
from mitos.server.ports.target import MAX_PORT, Target, checked_port, path_without_token
from mitos.server.settings import ServerSettings
from mitos.wire.errors import ApiError
from mitos.wire.ids import is_valid_id

__all__ = ["SANDBOXED", "routes"]

SANDBOXED = (
    b"content-security-policy",
    b"sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads",
)
"""Without a key the API's own origin may do everything, and a page of a sandbox comes from there.
With this header the browser gives the page an origin of no rights, which the gate refuses.
"""


def routes(settings: ServerSettings, proxy: PortProxy) -> list[BaseRoute]:
    """The route in its four forms: with and without a path below, HTTP and WebSocket."""
    endpoint = _Expose(proxy, is_sandboxed=settings.api_key is None)
    return [
        kind(path, endpoint)
        for path in (EXPOSE_PATH, EXPOSE_PATH + "/{below:path}")
        for kind in (Route, WebSocketRoute)
    ]


class _Expose:
    """Takes the prefix off the path, and carries the request to the port."""

    def __init__(self, proxy: PortProxy, *, is_sandboxed: bool) -> None:
        self._proxy = proxy
        self._is_sandboxed = is_sandboxed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def carry(send: Send) -> None:
            try:
                await self._proxy.carry(scope, receive, send, _target(scope))
            except ApiError as exc:
                if exc.code == "not_found":
                    exc.status = 502  # the route is there; what is behind it is not
                raise

        await answered(scope, receive, _sandboxed(send) if self._is_sandboxed else send, carry)


def _target(scope: Scope) -> Target:
    parameters = HTTPConnection(scope).path_params
    sandbox_id, port = parameters["id"], parameters["port"]
    if not is_valid_id(sandbox_id):
        raise ApiError("invalid_input", "the sandbox id is not allowed")
    note_sandbox(sandbox_id)
    is_number = port.isascii() and port.isdigit() and len(port) <= len(str(MAX_PORT))
    number = checked_port(int(port) if is_number else 0, "the port")
    # The sixth part begins what the port sees: /v1/sandboxes/<id>/expose/<port>/below
    below = b"/".join(scope["raw_path"].split(b"/")[6:])
    return Target(sandbox_id, number, path_without_token(scope, b"/" + below))


def _sandboxed(send: Send) -> Send:
    """Adds the policy beside those of the program: a browser keeps to all of them."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], SANDBOXED]}
        await send(message)

    return tell
