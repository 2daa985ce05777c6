"""Draining the server: an operator begins it, sees what is left, and may end it."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.lifecycle.drain import Drain
from mitos.node.node import RunningNode
from mitos.server.rest.request import Body, Call, Front

__all__ = ["routes"]


def routes(front: Front, node: RunningNode) -> list[Route]:
    """The resource's routes."""

    async def get_drain(_: Call) -> object:
        return _body(node.drain)

    async def begin_drain(call: Call) -> object:
        node.drain.begin(hibernates=call.query("hibernate") == "true")
        return _body(node.drain)

    async def end_drain(_: Call) -> object:
        await node.drain.end()
        return _body(node.drain)

    return [
        front.route("GET", "/v1/drain", get_drain),
        front.route("POST", "/v1/drain", begin_drain),
        front.route("DELETE", "/v1/drain", end_drain),
    ]


def _body(drain: Drain) -> Body:
    left = [{"kind": each.kind.value, "id": each.id, "why": each.why} for each in drain.left()]
    return {"draining": drain.is_on, "hibernates": drain.hibernates, "left": left}
