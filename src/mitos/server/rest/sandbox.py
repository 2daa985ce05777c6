"""Sandboxes that exist: list, read, deadline, pause, hibernate, end. Also how one is shown."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.server.rest.request import Body, Call, Front, checked_sandbox_id, integer

__all__ = ["routes", "sandbox_body", "sandbox_detail"]


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("GET", "/v1/sandboxes", _list),
        front.route("GET", "/v1/sandboxes/{id}", _get),
        front.route("DELETE", "/v1/sandboxes/{id}", _terminate),
        front.route("POST", "/v1/sandboxes/{id}/hibernate", _hibernate),
        front.route("POST", "/v1/set_timeout", _set_timeout),
        front.route("POST", "/v1/pause", _pause),
        front.route("POST", "/v1/resume", _resume),
    ]


async def _list(call: Call) -> object:
    return [sandbox_detail(record, call) for record in call.tenant.list_sandboxes()]


async def _get(call: Call) -> object:
    return sandbox_detail(call.tenant.get_sandbox(call.sandbox_id), call)


async def _terminate(call: Call) -> object:
    sandbox_id = call.sandbox_id
    subtree = call.query("subtree") == "true"
    ended = await call.tenant.terminate(sandbox_id, subtree=subtree)
    answer: Body = {"status": "terminated", "id": sandbox_id}
    return {**answer, "ids": ended} if subtree else answer


async def _hibernate(call: Call) -> object:
    await call.tenant.hibernate(call.sandbox_id)
    return {"status": "hibernated"}


async def _set_timeout(call: Call) -> object:
    body = call.body()
    sandbox_id = checked_sandbox_id(body.get("sandbox"))
    timeout_s = integer(body, "timeout_seconds")
    deadline = call.tenant.set_timeout(sandbox_id, timeout_s)
    return {"status": "ok", "deadline_unix": deadline, "timeout_seconds": timeout_s}


async def _pause(call: Call) -> object:
    body = call.body()
    await call.tenant.pause(checked_sandbox_id(body.get("sandbox")))
    return {"status": "paused"}


async def _resume(call: Call) -> object:
    body = call.body()
    await call.tenant.resume(checked_sandbox_id(body.get("sandbox")))
    return {"status": "running"}


def sandbox_body(record: SandboxRecord, call: Call) -> Body:
    """A sandbox as it is shown to whoever made it."""
    return {
        "id": record.id,
        "template_id": record.template_id,
        "endpoint": call.settings.base_url,
        "created_at": record.created_at.isoformat(),
        "fork_time_ms": record.fork_time_ms,
        "network": record.network.to_sandbox(),
    }


def sandbox_detail(record: SandboxRecord, call: Call) -> Body:
    """A sandbox as listings show it."""
    answer = {**sandbox_body(record, call), "phase": record.phase.value}
    if record.deadline_unix is not None:
        answer["deadline_unix"] = record.deadline_unix
    return answer
