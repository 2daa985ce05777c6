"""New sandboxes: from a template, or from a sandbox that runs (a live fork)."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.server.identifier import checked_id
from mitos.server.rest.request import Body, Call, Front, checked_sandbox_id, flag
from mitos.server.rest.sandbox import sandbox_body
from mitos.wire.errors import ApiError
from mitos.wire.ids import MAX_CHILDREN

__all__ = ["routes"]


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("POST", "/v1/fork", _create),
        front.route("POST", "/v1/sandboxes/{id}/fork", _fork),
    ]


async def _create(call: Call) -> object:
    body = call.body()
    if body.get("source"):
        return await _fork_from(call, checked_sandbox_id(body["source"], "source"), body)
    record = await call.tenant.create(
        checked_id(body.get("template"), "template"),
        checked_sandbox_id(body.get("id")),
        idempotency_key=call.idempotency_key,
    )
    return sandbox_body(record, call)


async def _fork(call: Call) -> object:
    source_id = call.sandbox_id
    return await _fork_from(call, source_id, call.body())


async def _fork_from(call: Call, source_id: str, body: Body) -> object:
    child_ids = _child_ids(body)
    flag(body, "pause_source")  # a source stands still for the snapshot only, asked for or not
    if flag(body, "partial"):
        return await _fork_some(call, source_id, child_ids)
    records = await call.tenant.fork(source_id, child_ids, idempotency_key=call.idempotency_key)
    answer = sandbox_body(records[0], call)
    if "ids" in body:
        answer["children"] = [sandbox_body(record, call) for record in records]
    return answer


async def _fork_some(call: Call, source_id: str, child_ids: list[str]) -> object:
    outcomes = await call.tenant.fork_some(source_id, child_ids)
    children = [sandbox_body(each, call) for each in outcomes if isinstance(each, SandboxRecord)]
    errors = [
        {"id": child_id, **each.envelope()}
        for child_id, each in zip(child_ids, outcomes, strict=True)
        if isinstance(each, ApiError)
    ]
    return {"children": children, "errors": errors}


def _child_ids(body: Body) -> list[str]:
    """The ids of the children: `id`, or all of our addition `ids`, whose first must be `id`."""
    ids = body.get("ids")
    if ids is None:
        return [checked_sandbox_id(body.get("id"))]
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_CHILDREN:
        raise ApiError("invalid_input", f"ids must be a list of 1 to {MAX_CHILDREN} sandbox ids")
    checked = [checked_sandbox_id(each) for each in ids]
    if len(set(checked)) != len(checked) or body.get("id", checked[0]) != checked[0]:
        raise ApiError("invalid_input", "ids must differ, and id must be the first of them")
    return checked
