"""Sandboxes and pools of a cluster, as its objects say."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["ForkInfo", "PoolStatus", "SandboxInfo", "SandboxPhase"]


class SandboxPhase(str, enum.Enum):
    """The phase of a sandbox in a cluster.

    Example:
        >>> SandboxPhase("Ready") is SandboxPhase.READY
        True
    """

    PENDING = "Pending"
    RESTORING = "Restoring"
    READY = "Ready"
    TERMINATING = "Terminating"
    FAILED = "Failed"


@dataclass
class SandboxInfo:
    """What the cluster says of a sandbox."""

    name: str
    phase: SandboxPhase
    endpoint: str
    node: str
    sandbox_id: str
    fork_time_ms: float
    pool: str


@dataclass
class ForkInfo:
    """A child of a fork in a cluster."""

    name: str
    sandbox_id: str
    endpoint: str
    node: str
    phase: SandboxPhase
    fork_time_ms: float = 0.0


@dataclass
class PoolStatus:
    """A pool of a cluster: how many snapshots are ready, wanted, and on which node."""

    name: str
    ready_snapshots: int
    desired: int
    node_distribution: dict[str, int] = field(default_factory=dict)
