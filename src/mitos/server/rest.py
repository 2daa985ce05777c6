"""The `/v1` routes: JSON in, a call on the node, JSON out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mitos.engine.base import Resources
from mitos.node.checkpoint import CheckpointRecord
from mitos.node.ledger import Kin
from mitos.node.node import Node
from mitos.node.sandbox import Phase, SandboxRecord
from mitos.node.template import TemplateRecord
from mitos.server.auth import authorize
from mitos.server.command import checked_command_id, command_body
from mitos.server.forward import Forwards
from mitos.server.journal import note_sandbox
from mitos.server.operations import Operations
from mitos.server.preview import mint_url
from mitos.server.settings import ServerSettings
from mitos.wire.errors import ApiError
from mitos.wire.ids import ID_PATTERN, MAX_CHILDREN, is_valid_id
from mitos.wire.network import NetworkPosture
from mitos.wire.workload import Workload

__all__ = ["routes"]

MAX_NAME = 256
"""Characters of a checkpoint's name."""

_Body = dict[str, Any]
_Handler = Callable[["_Call"], Awaitable[object]]


class _Call:
    """One request, with what every handler needs of it."""

    def __init__(
        self,
        request: Request,
        node: Node,
        settings: ServerSettings,
        operations: Operations,
        forwards: Forwards,
    ) -> None:
        self._request = request
        self.node = node
        self.settings = settings
        self.operations = operations
        self.forwards = forwards

    @property
    def idempotency_key(self) -> str | None:
        """The header, if it was sent with a value."""
        return self._request.headers.get("idempotency-key") or None

    def path_id(self, kind: str) -> str:
        """The id in the path.

        Raises:
            ApiError: `invalid_input`.
        """
        return _checked_id(self._request.path_params["id"], kind)

    def path_text(self, name: str) -> str:
        """Another variable part of the path."""
        return str(self._request.path_params[name])

    def query(self, name: str) -> str:
        """A parameter of the query; empty when it is absent."""
        return self._request.query_params.get(name, "")

    async def body(self) -> _Body:
        """The body, a JSON object.

        Raises:
            ApiError: `invalid_json`, or `body_too_large` as soon as it is.
        """
        raw = bytearray()
        async for piece in self._request.stream():
            raw += piece
            if len(raw) > self.settings.max_body_bytes:
                limit_mib = self.settings.max_body_bytes >> 20
                raise ApiError("body_too_large", f"the request body is over {limit_mib} MiB")
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as exc:
            raise ApiError("invalid_json", "the request body is not JSON") from exc
        if not isinstance(body, dict):
            raise ApiError("invalid_json", "the request body is not a JSON object")
        return body


def routes(node: Node, settings: ServerSettings) -> list[Route]:
    """The control plane's routes."""
    operations, forwards = Operations(node, settings), Forwards(node)

    def route(method: str, path: str, handler: _Handler, *, is_open: bool = False) -> Route:
        async def serve(request: Request) -> Response:
            if not is_open:
                authorize(request.headers.get("authorization"), settings.api_key)
            result = await handler(_Call(request, node, settings, operations, forwards))
            return result if isinstance(result, Response) else JSONResponse(result)

        return Route(path, serve, methods=[method], name=handler.__name__.lstrip("_"))

    return [
        route("GET", "/v1/health", _health, is_open=True),
        *operations.routes(),
        route("POST", "/v1/templates", _create_template),
        route("GET", "/v1/templates", _list_templates),
        route("GET", "/v1/templates/{id}", _get_template),
        route("DELETE", "/v1/templates/{id}", _delete_template),
        route("POST", "/v1/fork", _create_sandbox),
        route("GET", "/v1/sandboxes", _list_sandboxes),
        route("GET", "/v1/sandboxes/{id}", _get_sandbox),
        route("DELETE", "/v1/sandboxes/{id}", _terminate),
        route("POST", "/v1/sandboxes/{id}/fork", _fork),
        route("GET", "/v1/sandboxes/{id}/commands", _list_commands),
        route("DELETE", "/v1/sandboxes/{id}/commands/{command}", _end_command),
        route("POST", "/v1/sandboxes/{id}/hibernate", _hibernate),
        route("POST", "/v1/sandboxes/{id}/promote", _promote),
        route("POST", "/v1/sandboxes/{id}/restore", _restore),
        route("GET", "/v1/sandboxes/{id}/tree", _tree),
        route("GET", "/v1/sandboxes/{id}/diff", _diff),
        route("GET", "/v1/sandboxes/{id}/checkpoints", _list_checkpoints),
        route("POST", "/v1/sandboxes/{id}/checkpoints", _create_checkpoint),
        route("DELETE", "/v1/sandboxes/{id}/checkpoints/{checkpoint}", _delete_checkpoint),
        route("POST", "/v1/set_timeout", _set_timeout),
        route("POST", "/v1/pause", _pause),
        route("POST", "/v1/resume", _resume),
        route("POST", "/v1/preview", _preview),
        route("POST", "/v1/sandboxes/{id}/forward", _forward),
    ]


async def _health(call: _Call) -> object:
    return {
        "status": "ok",
        "mock": call.settings.is_mock,
        "templates": len(call.node.templates.records()),
        "sandboxes": len(call.node.list_sandboxes()),
    }


async def _create_template(call: _Call) -> object:
    body = await call.body()
    template_id = _checked_id(body.get("id"), "template")
    network = body.get("network")
    record = await call.node.templates.create(
        template_id,
        network=None if network is None else NetworkPosture.parse(network),
        resources=_resources(body.get("resources"), call.node.settings.default_resources),
        workload=Workload.parse(body.get("workload"), wait_s=body.get("init_wait_seconds")),
        idempotency_key=call.idempotency_key,
    )
    return _template(record)


async def _list_templates(call: _Call) -> object:
    return [_template(record) for record in call.node.templates.records()]


async def _get_template(call: _Call) -> object:
    return _template(call.node.templates.find(call.path_id("template")).record)


async def _delete_template(call: _Call) -> object:
    template_id = call.path_id("template")
    await call.node.templates.delete(template_id)
    return {"status": "deleted", "id": template_id}


async def _create_sandbox(call: _Call) -> object:
    body = await call.body()
    if body.get("source"):
        return await _fork_from(call, _checked_id(body["source"], "source"), body)
    record = await call.node.create(
        _checked_id(body.get("template"), "template"),
        _checked_id(body.get("id"), "sandbox"),
        idempotency_key=call.idempotency_key,
    )
    call.operations.observe_fork(record.fork_time_ms / 1000)
    return _sandbox(record, call)


async def _fork(call: _Call) -> object:
    source_id = call.path_id("sandbox")
    return await _fork_from(call, source_id, await call.body())


async def _fork_from(call: _Call, source_id: str, body: _Body) -> object:
    child_ids = _child_ids(body)
    if body.get("partial") is True:
        return await _fork_some(call, source_id, child_ids)
    records = await call.node.fork(source_id, child_ids, idempotency_key=call.idempotency_key)
    call.operations.observe_fork(records[0].fork_time_ms / 1000)
    answer = _sandbox(records[0], call)
    if "ids" in body:
        answer["children"] = [_sandbox(record, call) for record in records]
    return answer


async def _fork_some(call: _Call, source_id: str, child_ids: list[str]) -> object:
    outcomes = await call.node.fork_some(source_id, child_ids)
    children = [_sandbox(each, call) for each in outcomes if isinstance(each, SandboxRecord)]
    errors = [
        {"id": child_id, **each.envelope()}
        for child_id, each in zip(child_ids, outcomes, strict=True)
        if isinstance(each, ApiError)
    ]
    return {"children": children, "errors": errors}


def _child_ids(body: _Body) -> list[str]:
    """The ids of the children: `id`, or all of our addition `ids`, whose first must be `id`."""
    ids = body.get("ids")
    if ids is None:
        return [_checked_id(body.get("id"), "sandbox")]
    if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_CHILDREN:
        raise ApiError("invalid_input", f"ids must be a list of 1 to {MAX_CHILDREN} sandbox ids")
    checked = [_checked_id(each, "sandbox") for each in ids]
    if len(set(checked)) != len(checked) or body.get("id", checked[0]) != checked[0]:
        raise ApiError("invalid_input", "ids must differ, and id must be the first of them")
    return checked


async def _list_sandboxes(call: _Call) -> object:
    return [_detail(record, call) for record in call.node.list_sandboxes()]


async def _get_sandbox(call: _Call) -> object:
    return _detail(call.node.get_sandbox(call.path_id("sandbox")), call)


async def _terminate(call: _Call) -> object:
    sandbox_id = call.path_id("sandbox")
    subtree = call.query("subtree") == "true"
    ended = await call.node.terminate(sandbox_id, subtree=subtree)
    answer: _Body = {"status": "terminated", "id": sandbox_id}
    return {**answer, "ids": ended} if subtree else answer


async def _list_commands(call: _Call) -> object:
    found = await call.node.agent(call.path_id("sandbox")).list_commands()
    return {"commands": [command_body(each) for each in found]}


async def _end_command(call: _Call) -> object:
    agent = call.node.agent(call.path_id("sandbox"))
    command_id = checked_command_id(call.path_text("command"))
    await agent.end_command(command_id)
    return {"status": "ended", "id": command_id}


async def _set_timeout(call: _Call) -> object:
    body = await call.body()
    sandbox_id = _checked_id(body.get("sandbox"), "sandbox")
    timeout_s = _integer(body, "timeout_seconds")
    deadline = call.node.set_timeout(sandbox_id, timeout_s)
    return {"status": "ok", "deadline_unix": deadline, "timeout_seconds": timeout_s}


async def _pause(call: _Call) -> object:
    body = await call.body()
    await call.node.pause(_checked_id(body.get("sandbox"), "sandbox"))
    return {"status": "paused"}


async def _resume(call: _Call) -> object:
    body = await call.body()
    await call.node.resume(_checked_id(body.get("sandbox"), "sandbox"))
    return {"status": "running"}


async def _preview(call: _Call) -> object:
    body = await call.body()
    sandbox_id, port = _checked_id(body.get("sandbox"), "sandbox"), _integer(body, "port")
    if call.settings.preview is None:
        raise ApiError(
            "internal",
            "previews are not enabled on this server",
            remediation="Start it with --preview-origin, or use the expose route.",
            status=501,
        )
    if not 1 <= port <= 65_535:
        raise ApiError("invalid_input", "port must be from 1 to 65535")
    url, expires_unix = mint_url(call.node, call.settings.preview, sandbox_id, port)
    return {"url": url, "expires_unix": expires_unix}


async def _forward(call: _Call) -> object:
    sandbox_id, body = call.path_id("sandbox"), await call.body()
    port = _integer(body, "guest_port")
    return {"host": await call.forwards.open(sandbox_id, port), "guest_port": port}


async def _hibernate(call: _Call) -> object:
    await call.node.hibernate(call.path_id("sandbox"))
    return {"status": "hibernated"}


async def _promote(call: _Call) -> object:
    return _sandbox(await call.node.promote(call.path_id("sandbox")), call)


async def _restore(call: _Call) -> object:
    checkpoint_id = _checked_id((await call.body()).get("checkpoint"), "template")
    return _sandbox(await call.node.restore(call.path_id("sandbox"), checkpoint_id), call)


async def _tree(call: _Call) -> object:
    family = call.node.family(call.path_id("sandbox"))
    return {"nodes": [_kin(kin, call.node.phase_of(kin)) for kin in family]}


async def _diff(call: _Call) -> object:
    other_id = _checked_id(call.query("with"), "sandbox")
    found = await call.node.diff(call.path_id("sandbox"), other_id)
    return {"added": found.added, "removed": found.removed, "modified": found.modified}


async def _list_checkpoints(call: _Call) -> object:
    return [_checkpoint(each) for each in call.node.list_checkpoints(call.path_id("sandbox"))]


async def _create_checkpoint(call: _Call) -> object:
    name = (await call.body()).get("name", "")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise ApiError("invalid_input", f"name must be a text of at most {MAX_NAME} characters")
    return _checkpoint(await call.node.checkpoint(call.path_id("sandbox"), name))


async def _delete_checkpoint(call: _Call) -> object:
    checkpoint_id = call.path_text("checkpoint")
    call.node.delete_checkpoint(call.path_id("sandbox"), checkpoint_id)
    return {"status": "deleted", "id": checkpoint_id}


def _checkpoint(record: CheckpointRecord) -> _Body:
    return {
        "id": record.id,
        "name": record.name,
        "created_at": record.created_at.isoformat(),
        "size_bytes": record.size_bytes,
    }


def _kin(kin: Kin, phase: Phase | None) -> _Body:
    answer: _Body = {
        "uid": kin.uid,
        "id": kin.id,
        "parent_uid": kin.parent,
        "template_id": kin.template,
        "created_at_unix": kin.created_at,
        "phase": phase.value if phase else "Ended",
    }
    if kin.ended_at is not None:
        answer |= {"ended_at_unix": kin.ended_at, "reason": kin.reason}
    return answer


def _template(record: TemplateRecord) -> _Body:
    return {
        "id": record.id,
        "ready": True,
        "created_at": record.created_at.isoformat(),
        "creation_time_ms": record.creation_time_ms,
        "network": record.network.to_template(),
    }


def _sandbox(record: SandboxRecord, call: _Call) -> _Body:
    return {
        "id": record.id,
        "template_id": record.template_id,
        "endpoint": call.settings.base_url,
        "created_at": record.created_at.isoformat(),
        "fork_time_ms": record.fork_time_ms,
        "network": record.network.to_sandbox(),
    }


def _detail(record: SandboxRecord, call: _Call) -> _Body:
    answer = {**_sandbox(record, call), "phase": record.phase.value}
    if record.deadline_unix is not None:
        answer["deadline_unix"] = record.deadline_unix
    return answer


def _checked_id(value: object, kind: str) -> str:
    if isinstance(value, str) and is_valid_id(value):
        if kind != "template":
            note_sandbox(value)
        return value
    raise ApiError(
        "invalid_input",
        f"the {kind} id is missing or not allowed",
        remediation=f"Use 1 to 64 characters that match {ID_PATTERN}.",
    )


def _integer(body: _Body, member: str) -> int:
    value = body.get(member)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ApiError("invalid_input", f"{member} must be a whole number")


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


def _limit(value: _Body, member: str, default: int, low: int, high: int) -> int:
    number = _integer(value, member) if value.get(member) else default
    if low <= number <= high:
        return number
    raise ApiError("invalid_input", f"resources.{member} must be from {low} to {high}")
