"""From a principal to the node as that principal may see it: the one place where it happens.

REST, the runtime service, terminals and ports all take their view of the node from here, for each
request anew.
"""

from __future__ import annotations

from mitos.node.node import RunningNode
from mitos.node.principal import Principal
from mitos.node.tenant import Tenant
from mitos.server.gate import caller

__all__ = ["Tenants"]


class Tenants:
    """The views of a node.

    Args:
        node: runs the sandboxes of all owners.
    """

    def __init__(self, node: RunningNode) -> None:
        self._node = node

    def of(self, principal: Principal) -> Tenant:
        """What a principal may see and change."""
        return self._node.tenant(principal)

    def current(self) -> Tenant:
        """What the caller of the current request may see and change."""
        return self.of(caller.principal())
