"""Starts a template's workload in the machine that is about to be snapshotted.

The program is a kept command with the id `workload`: every sandbox of the template has it running,
and its output can be read there like that of any other command.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import h11

from mitos.agent.client import AgentClient
from mitos.agent.command import CommandInfo, ExecRequest
from mitos.agent.tunnel import Tunnel
from mitos.wire.errors import ApiError
from mitos.wire.workload import ReadyCheck, Workload

__all__ = ["COMMAND_ID", "start_workload"]

COMMAND_ID = "workload"

ASK_DEADLINE_S = 5.0
ASK_AGAIN_S = 0.05
MAX_HEAD_BYTES = 64 * 1024
OUTPUT_DEADLINE_S = 2.0
SHOWN_OUTPUT_BYTES = 2000
"""How much of what a program that failed said last is in the error."""


async def start_workload(agent: AgentClient, workload: Workload) -> None:
    """Starts the program and waits until it is ready.

    Raises:
        ApiError: `build_failed`: it cannot be started, ended, or is not ready in time.
    """
    request = ExecRequest(
        argv=workload.command, env=dict(workload.environment), id=COMMAND_ID, keep=True
    )
    async with agent.exec(request):
        pass
    if workload.ready is None:
        await _wait(agent, workload.wait_s)
    else:
        await _wait_until_ready(agent, workload.ready)


async def _wait(agent: AgentClient, wait_s: float) -> None:
    """A program that serves no HTTP is ready when it has not failed in that time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if await _has_ended_well(agent):
            return
        await asyncio.sleep(ASK_AGAIN_S)


async def _wait_until_ready(agent: AgentClient, ready: ReadyCheck) -> None:
    answer = "nothing yet"
    deadline = time.monotonic() + ready.timeout_s
    while time.monotonic() < deadline:
        answer = await _ask(agent, ready)
        if answer == str(ready.expect):
            return
        await _has_ended_well(agent)
        await asyncio.sleep(ASK_AGAIN_S)
    raise _failed(
        f"GET {ready.path} on port {ready.port} was not answered with {ready.expect} within"
        f" {ready.timeout_s} s, but with: {answer}",
        await _last_output(agent),
    )


async def _has_ended_well(agent: AgentClient) -> bool:
    """True for a program that ended with 0, as one does that goes on in the background.

    Raises:
        ApiError: `build_failed` for one that ended otherwise.
    """
    command = await _command(agent)
    if command is None or command.exit is None:
        return False
    if command.exit.exit_code == 0:
        return True
    reason = command.exit.error or f"the workload ended with exit code {command.exit.exit_code}"
    raise _failed(reason, await _last_output(agent))


async def _command(agent: AgentClient) -> CommandInfo | None:
    return next((each for each in await agent.list_commands() if each.id == COMMAND_ID), None)


async def _ask(agent: AgentClient, ready: ReadyCheck) -> str:
    """The status of one answer, or why there is none."""
    try:
        async with asyncio.timeout(ASK_DEADLINE_S), agent.dial(ready.port) as tunnel:
            return str(await _status(tunnel, ready))
    except TimeoutError:
        return f"no answer within {ASK_DEADLINE_S:.0f} s"
    except ApiError as exc:
        return exc.cause or exc.message
    except h11.RemoteProtocolError as exc:
        return f"something that is not HTTP ({exc})"


async def _status(tunnel: Tunnel, ready: ReadyCheck) -> int:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [("Host", f"127.0.0.1:{ready.port}"), ("Connection", "close")]
    request = h11.Request(method="GET", target=ready.path, headers=headers)
    await tunnel.write(connection.send(request) + connection.send(h11.EndOfMessage()))
    while not isinstance(event := connection.next_event(), h11.Response):
        if event is h11.NEED_DATA:
            connection.receive_data(await tunnel.read())
    return event.status_code


async def _last_output(agent: AgentClient) -> str:
    """The end of what the program said so far."""
    command = await _command(agent)
    if command is None:
        return ""
    said = bytearray()
    wanted = max(command.output_start, command.output_end - SHOWN_OUTPUT_BYTES)
    try:
        async with asyncio.timeout(OUTPUT_DEADLINE_S):
            async for piece in _outputs(agent, wanted):
                said += piece
                if len(said) >= command.output_end - wanted:
                    break
    except (TimeoutError, ApiError):
        pass
    return said.decode("utf-8", "replace").strip()


async def _outputs(agent: AgentClient, offset: int) -> AsyncIterator[bytes]:
    async with agent.attach(COMMAND_ID, offset) as command:
        async for output in command:
            yield output.data


def _failed(reason: str, output: str) -> ApiError:
    return ApiError(
        "build_failed",
        "the template's workload did not start",
        cause=f"{reason}; it said:\n{output}" if output else reason,
        remediation="Run the command in a sandbox of the plain template, and correct it.",
        context={"step": 0, "step_kind": "workload"},
    )
