"""Commands of a sandbox that can be found again: list, and end or forget one."""

from __future__ import annotations

from starlette.routing import Route

from mitos.agent.command import CommandInfo
from mitos.server.identifier import checked_id
from mitos.server.rest.request import Body, Call, Front

__all__ = ["routes"]


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [
        front.route("GET", "/v1/sandboxes/{id}/commands", _list),
        front.route("DELETE", "/v1/sandboxes/{id}/commands/{command}", _end),
    ]


async def _list(call: Call) -> object:
    found = await call.tenant.agent(call.sandbox_id).list_commands()
    return {"commands": [_command(each) for each in found]}


async def _end(call: Call) -> object:
    agent = call.tenant.agent(call.sandbox_id)
    command_id = checked_id(call.path("command"), "command")
    await agent.end_command(command_id)
    return {"status": "ended", "id": command_id}


def _command(found: CommandInfo) -> Body:
    body: Body = {
        "id": found.id,
        "command": found.title,
        "running": found.exit is None,
        "kept": found.is_kept,
        "output_start": found.output_start,
        "output_end": found.output_end,
        "exec_time_ms": found.duration_s * 1000,
    }
    if found.exit is None:
        body["pid"] = found.pid
        return body
    body["exit_code"] = found.exit.exit_code
    if found.exit.error:
        body["error"] = found.exit.error
    return body
