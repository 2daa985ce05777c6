"""All REST routes, from the resources."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.node import RunningNode
from mitos.server.ports.forward import Forwards
from mitos.server.rest import (
    checkpoint,
    command,
    drain,
    event,
    family,
    fork,
    sandbox,
    template,
)
from mitos.server.rest.operation import Operations
from mitos.server.rest.port import Ports
from mitos.server.rest.request import Front
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants

__all__ = ["routes"]


def routes(node: RunningNode, settings: ServerSettings, tenants: Tenants) -> list[Route]:
    """The control plane's and the operators' routes.

    Args:
        node: what operators see: the whole of it, whoever owns what.
        settings: of the server.
        tenants: what everybody else sees.
    """
    front = Front(settings, tenants)
    return [
        *Operations(node, settings).routes(),
        *drain.routes(front, node),
        *template.routes(front),
        *fork.routes(front),
        *sandbox.routes(front),
        *family.routes(front),
        *checkpoint.routes(front),
        *command.routes(front),
        *event.routes(front),
        *Ports(Forwards(node.events, tenants)).routes(front),
    ]
