"""Checkpoints of a sandbox: list, make, remove, go back to one."""

from __future__ import annotations

from starlette.routing import Route

from mitos.node.state.checkpoint import CheckpointRecord
from mitos.server.identifier import checked_id
from mitos.server.rest.request import Body, Call, Front
from mitos.server.rest.sandbox import sandbox_body
from mitos.wire.errors import bad_member
from mitos.wire.ids import is_text

__all__ = ["routes"]

MAX_NAME = 256
"""Characters of a checkpoint's name."""


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("GET", "/v1/sandboxes/{id}/checkpoints", _list),
        front.route("POST", "/v1/sandboxes/{id}/checkpoints", _create),
        front.route("DELETE", "/v1/sandboxes/{id}/checkpoints/{checkpoint}", _delete),
        front.route("POST", "/v1/sandboxes/{id}/restore", _restore),
    ]


async def _list(call: Call) -> object:
    return [_checkpoint(each) for each in call.tenant.list_checkpoints(call.sandbox_id)]


async def _create(call: Call) -> object:
    name = call.body().get("name", "")
    if not is_text(name, MAX_NAME):
        raise bad_member("name", f"a text of at most {MAX_NAME} characters, without NUL")
    record = await call.tenant.checkpoint(
        call.sandbox_id, name, idempotency_key=call.idempotency_key
    )
    return _checkpoint(record)


async def _delete(call: Call) -> object:
    checkpoint_id = call.path("checkpoint")
    call.tenant.delete_checkpoint(call.sandbox_id, checkpoint_id)
    return {"status": "deleted", "id": checkpoint_id}


async def _restore(call: Call) -> object:
    checkpoint_id = checked_id(call.body().get("checkpoint"), "checkpoint")
    return sandbox_body(await call.tenant.restore(call.sandbox_id, checkpoint_id), call)


def _checkpoint(record: CheckpointRecord) -> Body:
    return {
        "id": record.id,
        "name": record.name,
        "created_at": record.created_at.isoformat(),
        "size_bytes": record.size_bytes,
    }
