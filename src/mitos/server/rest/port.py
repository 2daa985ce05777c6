"""Requests for a way to a sandbox's port: a preview URL, a forwarded port."""

from __future__ import annotations

from starlette.routing import Route

from mitos.server.ports.forward import Forwards
from mitos.server.ports.preview import mint_url
from mitos.server.ports.target import checked_port
from mitos.server.rest.request import Call, Front, checked_sandbox_id, integer
from mitos.wire.errors import ApiError

__all__ = ["Ports"]


class Ports:
    """The routes.

    Args:
        forwards: opens and closes listeners.
    """

    def __init__(self, forwards: Forwards) -> None:
        self._forwards = forwards

    def routes(self, front: Front) -> list[Route]:
        """The resource's routes."""
        return [
            front.route("POST", "/v1/preview", _preview),
            front.route("POST", "/v1/sandboxes/{id}/forward", self._forward),
        ]

    async def _forward(self, call: Call) -> object:
        sandbox_id, body = call.sandbox_id, call.body()
        port = checked_port(integer(body, "guest_port"), "guest_port")
        return {"host": await self._forwards.open(sandbox_id, port), "guest_port": port}


async def _preview(call: Call) -> object:
    body = call.body()
    sandbox_id, port = checked_sandbox_id(body.get("sandbox")), integer(body, "port")
    if call.settings.preview is None:
        raise ApiError(
            "internal",
            "previews are not enabled on this server",
            remediation="Start it with --preview-origin, or use the expose route.",
            status=501,
        )
    url, expires_unix = mint_url(call.tenant, call.settings.preview, sandbox_id, checked_port(port))
    return {"url": url, "expires_unix": expires_unix}
