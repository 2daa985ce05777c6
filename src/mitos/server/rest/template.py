"""Templates: `/v1/templates`."""

from __future__ import annotations

from functools import partial

from starlette.routing import Route

from mitos.engine.base import Resources
from mitos.node.template.templates import TemplateRecord
from mitos.server.identifier import checked_id
from mitos.server.rest.request import Body, Call, Front, integer
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import Workload

__all__ = ["routes", "template_body"]


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("POST", "/v1/templates", _create),
        front.route("GET", "/v1/templates", _list),
        front.route("GET", "/v1/templates/{id}", _get),
        front.route("DELETE", "/v1/templates/{id}", _delete),
    ]


async def _create(call: Call) -> object:
    body = call.body()
    template_id = checked_id(body.get("id"), "template")
    network = body.get("network")
    record = await call.tenant.templates.create(
        template_id,
        network=None if network is None else NetworkPosture.parse(network),
        resources=_resources(body.get("resources"), call.tenant.settings.default_resources),
        workload=Workload.parse(body.get("workload"), wait_s=body.get("init_wait_seconds")),
        idempotency_key=call.idempotency_key,
    )
    return template_body(record)


async def _list(call: Call) -> object:
    return [template_body(record) for record in call.tenant.templates.records()]


async def _get(call: Call) -> object:
    template_id = checked_id(call.path("id"), "template")
    return template_body(call.tenant.templates.get(template_id))


async def _delete(call: Call) -> object:
    template_id = checked_id(call.path("id"), "template")
    await call.tenant.templates.delete(template_id)
    return {"status": "deleted", "id": template_id}


def template_body(record: TemplateRecord) -> Body:
    """A template as it is shown."""
    return {
        "id": record.id,
        "ready": True,
        "created_at": record.created_at.isoformat(),
        "creation_time_ms": record.creation_time_ms,
        "network": record.network.to_template(),
    }


def _resources(value: object, default: Resources) -> Resources:
    if value is None:
        return default
    if not isinstance(value, dict):
        raise ApiError("invalid_input", "resources must be an object")
    limits = partial(_limit, value)
    return Resources(
        vcpu_count=limits("vcpu_count", default.vcpu_count, 1, 256),
        memory_mib=limits("mem_size_mib", default.memory_mib, 64, 1 << 20),
        process_limit=default.process_limit,
    )


def _limit(value: Body, member: str, default: int, low: int, high: int) -> int:
    number = integer(value, member) if value.get(member) else default
    if low <= number <= high:
        return number
    raise ApiError("invalid_input", f"resources.{member} must be from {low} to {high}")
