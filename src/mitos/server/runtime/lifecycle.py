"""A sandbox's own calls on its life: Fork, Checkpoint, ExtendLifetime, Budget.

The published servers answer these `unimplemented`; what ours answer is said in spec/additions.md.
"""

from __future__ import annotations

import time

from mitos.node.tenant import Tenant
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.errors import ApiError
from mitos.wire.ids import MAX_CHILDREN, new_ids

__all__ = ["budget", "checkpoint", "extend_lifetime", "fork"]


async def fork(tenant: Tenant, sandbox_id: str, request: pb.ForkRequest) -> pb.Operation:
    """Makes siblings, all from one instant; the operation's name is their ids, comma-separated.

    Raises:
        ApiError: `invalid_input` for a count out of range or a bad variable.
    """
    if not 1 <= request.count <= MAX_CHILDREN:
        raise ApiError("invalid_input", f"count must be from 1 to {MAX_CHILDREN}")
    environment = {variable.key: variable.value for variable in request.env}
    if any(not key or "=" in key or "\0" in key + value for key, value in environment.items()):
        raise ApiError("invalid_input", "a variable's name is empty or holds '=', or one a NUL")
    child_ids = new_ids(request.count)
    await tenant.fork(sandbox_id, child_ids, environment=environment)
    return pb.Operation(name=",".join(child_ids), done=True)


async def checkpoint(tenant: Tenant, sandbox_id: str, request: pb.CheckpointRequest) -> pb.Revision:
    """Keeps a snapshot of the sandbox under the message as its label.

    Raises:
        ApiError: `invalid_input` for a workspace: this server has none.
    """
    if request.workspace:
        raise ApiError("invalid_input", "this server has no workspaces; leave it empty")
    kept = await tenant.checkpoint(sandbox_id, request.message)
    digest = await tenant.checkpoint_digest(sandbox_id, kept.id)
    return pb.Revision(name=kept.id, digest=f"sha256:{digest}")


def extend_lifetime(tenant: Tenant, sandbox_id: str, request: pb.ExtendRequest) -> pb.Lease:
    """Moves the deadline; one that has none gets it from now on.

    Raises:
        ApiError: `invalid_input`, `timeout_too_large`.
    """
    if request.additional_seconds <= 0:
        raise ApiError("invalid_input", "additional_seconds must be at least 1")
    left_s = _seconds_left(tenant, sandbox_id)
    extended = tenant.set_timeout(sandbox_id, left_s + request.additional_seconds)
    return pb.Lease(expires_at_unix=extended)


def budget(tenant: Tenant, sandbox_id: str) -> pb.BudgetStatus:
    """What is left of the server's own bounds, in sandboxes, checkpoints and seconds."""
    settings, left_s = tenant.settings, _seconds_left(tenant, sandbox_id)
    return pb.BudgetStatus(
        fork=_allowance(len(tenant.list_sandboxes()), settings.max_sandboxes),
        checkpoint=_allowance(len(tenant.list_checkpoints(sandbox_id)), settings.max_checkpoints),
        lifetime_extension=_allowance(left_s, settings.max_timeout_s),
    )


def _seconds_left(tenant: Tenant, sandbox_id: str) -> int:
    deadline = tenant.get_sandbox(sandbox_id).deadline_unix
    return 0 if deadline is None else max(0, deadline - int(time.time()))


def _allowance(used: int, limit: int) -> pb.Allowance:
    return pb.Allowance(remaining=max(0, limit - used), limit=limit)
