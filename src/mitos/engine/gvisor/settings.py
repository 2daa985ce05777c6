"""What the gVisor engine is told: `kind` builds this from the Mitos home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["GvisorSettings"]


@dataclass(frozen=True, slots=True)
class GvisorSettings:
    """Settings of one engine. Two engines must not share a state folder."""

    runsc: Path
    """The `runsc` binary. `scripts/install` puts a tested one under the Mitos home."""

    state: Path
    """Folder that belongs to the engine alone, and to those that adopt its sandboxes later."""

    copies: Path | None = None
    """Folder for snapshots of sandboxes that are copied while they are adopted; emptied at start.
    One in `state` if None.
    """

    order_timeout_s: float = 30.0
    """Deadline of one order to a sandbox. Orders take milliseconds; this is for overload."""

    create_timeout_s: float = 60.0
    """Deadline of making a blank, about 0.1 s on an idle machine and more when many are made."""

    transfer_mib_per_s: float = 20.0
    """Slowest disk we wait for: orders get this much more time per MiB of a machine's memory."""
