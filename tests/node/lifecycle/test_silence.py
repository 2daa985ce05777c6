"""Machines that do not answer, or not as they should: who is told what, and who is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import pytest

from mitos.agent import client, pulse
from mitos.agent.command import ExecRequest
from mitos.engine.base import HostProcess, MachineEnd
from mitos.engine.fake import FakeEngine
from mitos.engine.fake.engine import FakeMachine
from mitos.node.phase import Phase
from mitos.wire.errors import ApiError, ConnectCode
from tests.node.conftest import Node, output

PROMPT_S = 10.0


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CALL_S": 0.05, "SILENCE_S": 0.1, "STEP_S": 0.02}.items():
        monkeypatch.setattr(pulse, name, value)
    monkeypatch.setattr(pulse, "is_crowded", lambda: False)


@pytest.fixture
async def machine(node: Node, engine: FakeEngine) -> FakeMachine:
    """The machine of the sandbox `one`."""
    await node.create("python", "one")
    sandbox = node._find("one")
    return engine.machines[sandbox.machine.id]


async def refused(work: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        async with asyncio.timeout(PROMPT_S):
            await work
    return caught.value


async def test_calls_on_a_machine_that_hangs_are_told_and_it_is_kept(
    node: Node, machine: FakeMachine
) -> None:
    machine.guest.running.clear()

    for _ in range(2):
        error = await refused(output(node, "one", "echo a"))
        assert (error.code, error.status, error.connect) == (
            "canceled",
            503,
            ConnectCode.UNAVAILABLE,
        )
        assert error.message == "sandbox one does not answer"
    for verb in (node.fork("one", ["two"]), node.hibernate("one"), node.pause("one")):
        assert (await refused(verb)).message == "sandbox one does not answer"
    assert Phase.READY is node.get_sandbox("one").phase

    machine.guest.running.set()
    async with asyncio.timeout(PROMPT_S):
        while True:
            try:
                assert "b\n" == await output(node, "one", "echo b")
                break
            except ApiError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("stopped", "cause"),
    [
        (None, "its agent is stopped, or kept from running"),
        (HostProcess.KERNEL, "the process that runs it on the host is stopped"),
        (HostProcess.FILES, "the process that serves its files on the host is stopped"),
    ],
)
async def test_what_does_not_answer_is_told_by_its_name(
    node: Node, machine: FakeMachine, stopped: HostProcess | None, cause: str
) -> None:
    machine.stopped_process = stopped
    machine.guest.running.clear()

    for work in (output(node, "one", "echo a"), output(node, "one", "echo a"), node.pause("one")):
        assert (await refused(work)).cause == cause


async def test_a_machine_that_hangs_is_terminated_at_once(node: Node, machine: FakeMachine) -> None:
    machine.guest.running.clear()
    await refused(output(node, "one", "echo a"))

    async with asyncio.timeout(PROMPT_S):
        await node.terminate("one")

    assert not machine.is_running
    assert (await refused(output(node, "one", "echo a"))).cause == "it was terminated"


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (MachineEnd.EXITED, "its first process ended"),
        (MachineEnd.OUT_OF_MEMORY, "it reached its memory limit of 512 MiB and was killed"),
        (MachineEnd.LOST, "the process that ran it on the host was killed or crashed"),
        (
            MachineEnd.FILES_LOST,
            "the process that served its files on the host was killed or crashed",
        ),
    ],
)
async def test_an_end_has_one_cause_in_flight_and_afterwards(
    node: Node, machine: FakeMachine, end: MachineEnd, cause: str
) -> None:
    calling = asyncio.create_task(output(node, "one", "sleep 99"))
    await asyncio.sleep(0.1)
    await machine.stop(end)

    assert (await refused(calling)).cause == cause
    assert (await refused(output(node, "one", "echo a"))).cause == cause


async def test_garbage_on_the_link_ends_a_sandbox_with_its_own_cause(
    node: Node, machine: FakeMachine
) -> None:
    calling = asyncio.create_task(output(node, "one", "sleep 99"))
    await asyncio.sleep(0.1)
    await machine._guest_end.write(b"\xff" * 64)

    cause = "what came from its agent was not what an agent says"
    assert (await refused(calling)).cause == cause
    assert (await refused(output(node, "one", "echo a"))).cause == cause


@pytest.mark.usefixtures("machine")
async def test_a_command_s_deadline_stands_still_with_its_sandbox(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "COMMAND_GRACE_S", 0.2)
    began = time.monotonic()
    request = ExecRequest(["/bin/sh", "-c", "sleep 30"], timeout_s=0.3)
    with node.stream("one") as agent:
        async with agent.exec(request) as command:
            await node.pause("one")
            await asyncio.sleep(1)
            await node.resume("one")
            async for _ in command:
                pass

    assert command.exit is not None
    assert command.exit.exit_code == 124
    assert time.monotonic() - began >= 1.2


@pytest.mark.parametrize("error_s", [600, -600])
async def test_a_machine_whose_clock_is_wrong_is_not_served(
    node: Node, engine: FakeEngine, machine: FakeMachine, error_s: float
) -> None:
    engine.clock_error_s = error_s

    error = await refused(node.fork("one", ["two"]))

    assert error.code == "internal"
    assert "clock is off by 600" in error.message
    assert [record.id for record in node.list_sandboxes()] == ["one"]
    assert machine.is_running
