"""What a running node is made of."""

from __future__ import annotations

from dataclasses import dataclass

from mitos.node.lifecycle.checkpointing import Checkpointing
from mitos.node.lifecycle.creation import Creation
from mitos.node.lifecycle.drain import Drain
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.relatives import Relatives
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.lifecycle.suspension import Suspension
from mitos.node.settings import NodeSettings
from mitos.node.state.state import State
from mitos.node.template.templates import Templates

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, each once; `node/node.py` assembles them, and all tenants share them."""

    settings: NodeSettings
    snapshot_format: str
    state: State
    registry: Registry
    lifecycle: Lifecycle
    supervisor: Supervisor
    creation: Creation
    suspension: Suspension
    checkpointing: Checkpointing
    relatives: Relatives
    templates: Templates
    drain: Drain
