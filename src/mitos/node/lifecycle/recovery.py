"""What an earlier server left: its hibernated sandboxes live on, all others have ended."""

from __future__ import annotations

import logging

from mitos.node.end import EndReason
from mitos.node.inside.budget import Budget
from mitos.node.lifecycle.creation import Creation
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.phase import Phase
from mitos.node.state.persist import SandboxRow
from mitos.node.state.state import State

__all__ = ["recover"]

_log = logging.getLogger(__name__)


def recover(
    state: State,
    lifecycle: Lifecycle,
    supervisor: Supervisor,
    creation: Creation,
    snapshot_format: str,
) -> None:
    """Takes over what hibernates, ends all else, and removes files that belong to nobody.

    Args:
        state: of the home.
        lifecycle: goes on with sandboxes.
        supervisor: makes the sandboxes.
        creation: knows what families have used up.
        snapshot_format: what this server's engine can read.

    Raises:
        ApiError: the state cannot be read or written, or is of another version.
    """
    budgets: dict[str, Budget] = {}
    kept: set[str] = set()
    for row in state.sandboxes.living():
        if (reason := _loss(row, state, snapshot_format)) is not None:
            state.sandboxes.end(row, reason)
            continue
        if row.budget_id not in budgets:
            budgets[row.budget_id] = creation.budget(row.budget_id)
        lifecycle.take_over(supervisor.new_sandbox(row, None, budgets[row.budget_id]))
        kept.add(row.uid)
    state.hibernations.sweep(kept)
    state.checkpoints.sweep(kept)


def _loss(row: SandboxRow, state: State, snapshot_format: str) -> EndReason | None:
    """Why a sandbox of an earlier server cannot go on; None when it can."""
    if row.phase is not Phase.HIBERNATED:
        _log.warning("sandbox %s ended with the previous server", row.id)
        return EndReason.SERVER_STOPPED
    if not state.hibernations.is_readable(row, snapshot_format):
        _log.error("sandbox %s cannot be woken: its snapshot is unreadable", row.id)
        return EndReason.UNREADABLE
    return None
