"""What a node promises about its sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mitos.engine.base import Resources
from mitos.engine.fake import FakeEngine
from mitos.node.node import Node as StoppedNode
from mitos.node.phase import Phase
from mitos.node.settings import NodeSettings
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.network import NetworkPosture
from tests.node.clock import ManualClock
from tests.node.conftest import Node, StartNode, output


def code_of(caught: pytest.ExceptionInfo[ApiError]) -> tuple[str, int]:
    return caught.value.code, caught.value.status


@pytest.mark.parametrize("name", ["home", "scratch"])
async def test_a_folder_that_cannot_be_used_is_told(
    tmp_path: Path, engine: FakeEngine, name: str
) -> None:
    (tmp_path / "file").touch()
    folders = {each: tmp_path / each for each in ("home", "scratch")}
    settings = NodeSettings(**{**folders, name: tmp_path / "file" / "deep"})

    with pytest.raises(ApiError) as caught:
        await StoppedNode(settings, engine).start()

    assert ("internal", 503) == code_of(caught)
    assert f"--{name}" in caught.value.remediation
    assert {} == engine.machines


async def test_a_created_sandbox_runs_commands_under_its_own_name(node: Node) -> None:
    record = await node.create("python", "one")

    assert Phase.READY is record.phase
    assert record.fork_time_ms > 0
    assert "one\n" == await output(node, "one", "hostname")


async def test_a_warm_sandbox_gets_the_name_of_who_takes_it(
    start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node(warm_per_template=1)
    await node.templates.create("python")
    while not engine.machines:
        await asyncio.sleep(0.01)

    await node.create("python", "taken")

    assert "taken\n" == await output(node, "taken", "hostname")


async def test_an_unknown_template_is_not_found(node: Node) -> None:
    with pytest.raises(ApiError) as caught:
        await node.create("nope", "one")
    assert ("not_found", 404) == code_of(caught)

    with pytest.raises(ApiError) as caught:
        await node.templates.create("nope")
    assert ("not_found", 404) == code_of(caught)
    assert "python" in caught.value.remediation


async def test_an_id_in_use_is_a_conflict(node: Node) -> None:
    await node.create("python", "one")

    with pytest.raises(ApiError) as caught:
        await node.create("python", "one")

    assert ("invalid_input", 409) == code_of(caught)
    assert 1 == len(node.list_sandboxes())


async def test_a_terminated_id_is_free_again(node: Node) -> None:
    await node.create("python", "one")
    await node.terminate("one")

    with pytest.raises(ApiError) as caught:
        node.agent("one")
    assert ("not_found", 404) == code_of(caught)
    await node.create("python", "one")


async def test_all_children_of_a_fork_share_their_parents_past(node: Node) -> None:
    await node.create("python", "parent")
    await output(node, "parent", "echo before > /workspace/f")

    records = await node.fork("parent", ["a", "b", "c"])
    await output(node, "parent", "echo after > /workspace/f")

    assert ["a", "b", "c"] == [record.id for record in records]
    assert {"parent"} == {record.parent_id for record in records}
    assert ["before\n"] * 3 == [await output(node, name, "cat f") for name in ("a", "b", "c")]


async def test_a_fork_whose_restore_fails_leaves_no_child(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "parent")
    engine.fail_next = "restore"

    with pytest.raises(ApiError) as caught:
        await node.fork("parent", ["a", "b"])

    assert ("internal", 500) == code_of(caught)
    assert ["parent"] == [record.id for record in node.list_sandboxes()]
    assert 1 == len(engine.machines)
    assert "still here\n" == await output(node, "parent", "echo still here")
    assert [] == list(node.settings.scratch.iterdir())


async def test_a_child_that_keeps_silent_in_its_handshake_is_destroyed(
    start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node(handshake_deadline_s=0.2)
    await node.templates.create("python")
    await node.create("python", "parent")
    engine.mute_next_identify = True

    with pytest.raises(ApiError) as caught:
        await node.fork("parent", ["a", "b"])

    assert "identity" in caught.value.message
    assert 1 == len(engine.machines)


async def test_a_checkpoint_that_fails_leaves_the_parent_running(
    node: Node, engine: FakeEngine
) -> None:
    await node.create("python", "parent")
    engine.fail_next = "checkpoint"

    with pytest.raises(ApiError):
        await node.fork("parent", ["a"])

    assert "ok\n" == await output(node, "parent", "echo ok")
    assert 1 == len(engine.machines)
    await node.fork("parent", ["a"])


async def test_one_idempotency_key_creates_once_however_many_ask(node: Node) -> None:
    records = await asyncio.gather(
        *(node.create("python", f"s{n}", idempotency_key="key") for n in range(10))
    )

    assert 1 == len({record.id for record in records})
    assert 1 == len(node.list_sandboxes())


async def test_a_failed_create_frees_its_idempotency_key(node: Node, engine: FakeEngine) -> None:
    engine.fail_next = "restore"
    with pytest.raises(ApiError):
        await node.create("python", "one", idempotency_key="key")

    record = await node.create("python", "one", idempotency_key="key")

    assert "one" == record.id


async def test_a_key_whose_sandbox_is_gone_creates_anew(node: Node) -> None:
    await node.create("python", "one", idempotency_key="key")
    await node.terminate("one")

    record = await node.create("python", "two", idempotency_key="key")

    assert "two" == record.id


async def test_a_deadline_ends_the_sandbox_and_is_remembered(
    node: Node, clock: ManualClock
) -> None:
    await node.create("python", "one")
    deadline = node.set_timeout("one", 60)
    assert deadline == int(clock.now() + 60)
    await clock.advance(59)
    assert 1 == len(node.list_sandboxes())
    await clock.advance(2)
    assert [] == node.list_sandboxes()

    with pytest.raises(ApiError) as caught:
        node.agent("one")

    assert ("idle_timeout", 410) == code_of(caught)
    assert {"sandbox": "one"} == caught.value.context


async def test_a_deadline_stands_still_while_the_sandbox_is_paused(
    node: Node, clock: ManualClock
) -> None:
    await node.create("python", "one")
    node.set_timeout("one", 1)
    await node.pause("one")
    await clock.advance(10)

    assert Phase.PAUSED is node.get_sandbox("one").phase
    await node.resume("one")
    assert (node.get_sandbox("one").deadline_unix or 0) >= int(clock.now())


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_timeout_must_be_positive(node: Node, seconds: int) -> None:
    await node.create("python", "one")

    with pytest.raises(ApiError) as caught:
        node.set_timeout("one", seconds)

    assert ("invalid_input", 400) == code_of(caught)


async def test_a_timeout_over_the_ceiling_is_refused_not_clamped(node: Node) -> None:
    await node.create("python", "one")
    node.set_timeout("one", 86_400)

    with pytest.raises(ApiError) as caught:
        node.set_timeout("one", 86_401)

    assert {"sandbox": "one", "requested_s": 86_401, "max_timeout_s": 86_400} == (
        caught.value.context
    )


async def test_a_paused_sandbox_refuses_calls_until_it_is_resumed(node: Node) -> None:
    await node.create("python", "one")
    await node.pause("one")
    await node.pause("one")

    with pytest.raises(ApiError) as caught:
        node.agent("one")
    assert ConnectCode.FAILED_PRECONDITION is caught.value.connect
    await node.resume("one")
    await node.resume("one")
    assert "ok\n" == await output(node, "one", "echo ok")


async def test_only_so_many_streams_are_open_at_once(start_node: StartNode) -> None:
    node = await start_node(max_streams=2)
    await node.templates.create("python")
    await node.create("python", "one")

    with node.stream("one"), node.stream("one"):
        with pytest.raises(ApiError) as caught, node.stream("one"):
            pytest.fail("a third stream was let in")
        assert ("too_many_streams", 429) == code_of(caught)
    with node.stream("one"):
        pass


async def test_only_so_many_sandboxes_run_at_once(start_node: StartNode) -> None:
    node = await start_node(max_sandboxes=2)
    await node.templates.create("python")
    await node.create("python", "one")

    with pytest.raises(ApiError) as caught:
        await node.fork("one", ["a", "b"])

    assert ("quota_exceeded", 429) == code_of(caught)
    await node.fork("one", ["a"])


async def test_a_machine_that_ends_by_itself_is_noticed_and_explained(
    node: Node, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    (machine,) = engine.machines.values()

    await machine.link.write(b"\xff" * 64)
    async with asyncio.timeout(10):
        while node.list_sandboxes() or engine.machines:
            await asyncio.sleep(0.01)

    with pytest.raises(ApiError) as caught:
        node.agent("one")
    assert ("not_found", 404) == code_of(caught)
    assert "first process ended" in caught.value.cause


async def test_a_call_in_flight_when_the_sandbox_ends_gets_an_error(node: Node) -> None:
    await node.create("python", "one")
    running = asyncio.create_task(output(node, "one", "sleep 30"))
    await asyncio.sleep(0.05)

    await node.terminate("one")

    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(running, 2)
    assert "not_found" == caught.value.code


async def test_a_restart_remembers_which_sandboxes_ended(start_node: StartNode) -> None:
    node = await start_node()
    await node.templates.create("python")
    await node.create("python", "one")
    await node.close()

    again = await start_node()

    with pytest.raises(ApiError) as caught:
        again.agent("one")
    assert "server was stopped" in caught.value.cause


async def test_a_second_server_with_the_same_home_is_refused(
    start_node: StartNode, node: Node
) -> None:
    with pytest.raises(ApiError) as caught:
        await start_node()

    assert "--home" in caught.value.remediation
    await node.create("python", "one")


async def test_a_template_is_made_anew_for_other_resources(node: Node) -> None:
    record = await node.templates.create("python", resources=Resources(memory_mib=1024))

    assert 1024 == record.resources.memory_mib
    assert 1 == len(node.templates.records())
    await node.create("python", "one")


async def test_the_last_network_posture_counts_for_later_sandboxes(node: Node) -> None:
    before = await node.create("python", "before")
    await node.templates.create("python", network=NetworkPosture(block=True))

    after = await node.create("python", "after")

    assert not before.network.block
    assert after.network.block
    assert not node.get_sandbox("before").network.block


async def test_close_ends_every_machine(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    await node.fork("one", ["a", "b"])

    await node.close()
    await node.close()

    assert not engine.machines
    assert not node.settings.scratch.exists()


async def test_a_write_replaces_a_file_and_a_read_returns_it(node: Node) -> None:
    await node.create("python", "one")
    agent = node.agent("one")
    content = bytes(range(256)) * 4096

    assert len(content) == await agent.write_file("/workspace/deep/f", pieces(content, 70_000))
    assert content == b"".join([chunk async for chunk in agent.read_file("/workspace/deep/f")])
    assert ["f"] == [entry.name for entry in await agent.list_directory("/workspace/deep")]


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
