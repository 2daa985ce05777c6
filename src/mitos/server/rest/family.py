"""What forks of one sandbox are to each other: the tree, differences, promotion."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.phase import Phase
from mitos.node.state.persist import Relative
from mitos.server.rest.request import Body, Call, Front, checked_sandbox_id
from mitos.server.rest.sandbox import sandbox_body

__all__ = ["routes"]


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("GET", "/v1/sandboxes/{id}/tree", _tree),
        front.route("GET", "/v1/sandboxes/{id}/diff", _diff),
        front.route("POST", "/v1/sandboxes/{id}/promote", _promote),
    ]


async def _tree(call: Call) -> object:
    tenant = call.tenant
    return {
        "nodes": [_relative(each, tenant.phase_of(each)) for each in tenant.family(call.sandbox_id)]
    }


async def _diff(call: Call) -> object:
    other_id = checked_sandbox_id(call.query("with"))
    found = await call.tenant.diff(call.sandbox_id, other_id)
    return {"added": found.added, "removed": found.removed, "modified": found.modified}


async def _promote(call: Call) -> object:
    key = call.idempotency_key
    return sandbox_body(await call.tenant.promote(call.sandbox_id, idempotency_key=key), call)


def _relative(relative: Relative, phase: Phase | None) -> Body:
    answer: Body = {
        "uid": relative.uid,
        "id": relative.id,
        "parent_uid": relative.parent,
        "template_id": relative.template,
        "created_at_unix": relative.created_at,
        "phase": phase.value if phase else "Ended",
    }
    if relative.ended_at is not None:
        answer |= {"ended_at_unix": relative.ended_at, "reason": relative.reason}
    return answer
