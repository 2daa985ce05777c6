"""Settings of a node.

`cli` fills them in; nothing in `node` reads the environment.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from mitos.engine.base import Resources
from mitos.node.quota import Quota

__all__ = ["NodeSettings", "OnStop"]


class OnStop(str, enum.Enum):
    """What becomes of running sandboxes when their server is stopped."""

    LEAVE = "leave"  # they go on, and the next server of the home adopts them
    HIBERNATE = "hibernate"  # they are written to disk and sleep
    END = "end"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Where a node keeps its state, and its limits. Times are seconds."""

    home: Path
    """Everything that outlives the server: templates, root filesystems, the state database."""

    scratch: Path
    """Snapshots of live forks, gone as soon as the children run. Memory-backed is fastest."""

    default_resources: Resources = field(default_factory=Resources)
    """Limits of a template that names none: 1 CPU, 512 MiB, as the published server."""

    warm_per_template: int = 2
    """Restored, identified sandboxes kept ready per template in use: a create takes one in about a
    millisecond.
    """

    blanks_per_spec: int = 4
    """Prepared machines kept for restores. A fork larger than this prepares the rest while it runs.
    """

    max_blanks_per_spec: int = 16
    """The pool of blanks grows to the largest recent fork, up to this."""

    max_sandboxes: int = 512
    """More are refused with `quota_exceeded`; an idle one costs about 15 MiB of host memory."""

    max_checkpoints: int = 16
    """Checkpoints of one sandbox; a larger number is refused with `quota_exceeded`."""

    max_checkpoint_bytes: int = 16 << 30
    """Disk space of all checkpoints of this server together; 0 means no limit."""

    makers_per_processor: int = 2
    """Creates, forks, wakes and restores that are served at the same time, for each processor."""

    max_waiting_makers: int = 256
    """More wait in line; those beyond are refused with `rate_limited`."""

    admission_deadline_s: float = 60.0
    """How long one may wait in that line."""

    guest_forks: int = 16
    """Forks that a sandbox may make from inside, together with those it made so; 0 forbids them."""

    idle_timeout_s: int = 0
    """A sandbox without a deadline is terminated when nobody used it for so long; 0 means never."""

    max_streams: int = 16
    """Open exec, run_code and terminal streams of one sandbox; 0 means no limit."""

    max_timeout_s: int = 86_400
    """Ceiling of every requested timeout; 0 means none."""

    on_stop: OnStop = OnStop.END
    """What becomes of running sandboxes when the node is closed."""

    handshake_deadline_s: float = 15.0
    """How long a restored machine may take to confirm its identity."""

    freeze_deadline_s: float = 10.0
    """How long a running agent may take to hold still before a snapshot."""

    boot_deadline_s: float = 60.0
    """How long a cold machine may take to say hello; the first start reads its files from disk."""

    def quota(self, owner: str) -> Quota:  # noqa: ARG002  every owner has the same, so far
        """An owner's bounds."""
        return Quota(self.max_sandboxes, self.max_checkpoints, self.max_checkpoint_bytes)
