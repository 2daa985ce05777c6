"""Hibernation, idle sandboxes and copies of what stands still."""

from __future__ import annotations

import asyncio

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.phase import Phase
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.conftest import Node, StartNode, output


async def test_a_call_wakes_a_hibernated_sandbox(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    await output(node, "one", "echo kept > /workspace/f")
    await node.hibernate("one")
    await node.hibernate("one")

    assert Phase.HIBERNATED is node.list_sandboxes()[0].phase
    assert not engine.machines
    assert "kept\n" == await output(node, "one", "cat /workspace/f")
    assert Phase.READY is node.get_sandbox("one").phase
    assert [] == list((node.settings.home / "hibernated").iterdir())


async def test_concurrent_calls_wake_it_once(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    await node.hibernate("one")

    printed = await asyncio.gather(*(output(node, "one", f"echo {n}") for n in range(8)))

    assert [f"{n}\n" for n in range(8)] == printed
    assert 1 == len(engine.machines)


async def test_a_failed_wake_is_an_error_and_loses_nothing(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    await output(node, "one", "echo kept > /workspace/f")
    await node.hibernate("one")
    engine.fail_next = "restore"

    with pytest.raises(ApiError) as caught:
        await output(node, "one", "true")

    assert "internal" == caught.value.code
    assert Phase.HIBERNATED is node.get_sandbox("one").phase
    assert "kept\n" == await output(node, "one", "cat /workspace/f")


async def test_a_failed_hibernation_leaves_the_sandbox_running(
    node: Node, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    engine.fail_next = "checkpoint"

    with pytest.raises(ApiError):
        await node.hibernate("one")

    assert Phase.READY is node.get_sandbox("one").phase
    assert "ok\n" == await output(node, "one", "echo ok")
    assert [] == list((node.settings.home / "hibernated").iterdir())


async def test_open_calls_are_not_cut_off_by_hibernation(node: Node) -> None:
    await node.create("python", "one")

    with node.stream("one"), pytest.raises(ApiError) as caught:
        await node.hibernate("one")

    assert ("invalid_input", 409) == (caught.value.code, caught.value.status)
    await node.hibernate("one")


async def test_a_deadline_stands_still_in_hibernation(node: Node, clock: ManualClock) -> None:
    await node.create("python", "one")
    node.set_timeout("one", 1)
    await node.hibernate("one")
    await clock.advance(10)

    assert Phase.HIBERNATED is node.get_sandbox("one").phase
    await node.resume("one")
    assert (node.get_sandbox("one").deadline_unix or 0) >= int(clock.now())


async def test_terminating_a_hibernated_sandbox_removes_its_snapshot(node: Node) -> None:
    await node.create("python", "one")
    await node.hibernate("one")

    await node.terminate("one")

    assert [] == node.list_sandboxes()
    assert [] == list((node.settings.home / "hibernated").iterdir())


async def test_a_snapshot_that_a_later_server_cannot_read_is_told(
    node: Node, start_node: StartNode, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    await node.hibernate("one")
    await node.close()
    for snapshot in (node.settings.home / "hibernated").iterdir():
        (snapshot / "snapshot").rename(snapshot / "elsewhere")

    later = await start_node()

    with pytest.raises(ApiError) as caught:
        later.get_sandbox("one")
    assert "cannot read its snapshot" in (caught.value.cause or "")


@pytest.mark.parametrize("stop", ["pause", "hibernate"])
async def test_children_of_what_stands_still_run(node: Node, stop: str) -> None:
    await node.create("python", "one")
    await output(node, "one", "echo kept > /workspace/f")
    await getattr(node, stop)("one")
    before = node.get_sandbox("one").phase

    await node.fork("one", ["a", "b"])

    assert before is node.get_sandbox("one").phase
    assert ["kept\n"] * 2 == [await output(node, name, "cat /workspace/f") for name in "ab"]
    await node.resume("one")
    assert "kept\n" == await output(node, "one", "cat /workspace/f")


async def test_an_idle_sandbox_ends_and_a_used_one_does_not(
    start_node: StartNode, clock: ManualClock
) -> None:
    node = await start_node(idle_timeout_s=60)
    await node.templates.create("python")
    await node.create("python", "idle")
    await node.create("python", "used")
    await node.create("python", "paused")
    await node.pause("paused")

    with node.stream("used"):
        await clock.advance(61)
        await clock.advance(61)
        assert ["used", "paused"] == [record.id for record in node.list_sandboxes()]

    with pytest.raises(ApiError) as caught:
        node.agent("idle")
    assert ("idle_timeout", 410) == (caught.value.code, caught.value.status)


async def test_a_partial_fork_keeps_what_came_up(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    engine.fail_next = "restore"

    outcomes = await node.fork_some("one", ["a", "b", "c"])

    failed = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    assert ["internal"] == [error.code for error in failed]
    assert 3 == len(node.list_sandboxes()) == len(engine.machines)


async def test_too_many_checkpoints_are_refused(start_node: StartNode) -> None:
    node = await start_node(max_checkpoints=1)
    await node.templates.create("python")
    await node.create("python", "one")
    await node.checkpoint("one", "first")

    with pytest.raises(ApiError) as caught:
        await node.checkpoint("one", "second")

    assert "quota_exceeded" == caught.value.code
    assert ["first"] == [record.name for record in node.list_checkpoints("one")]


async def test_checkpoints_over_the_disk_limit_leave_nothing(start_node: StartNode) -> None:
    node = await start_node(max_checkpoint_bytes=1)
    await node.templates.create("python")
    await node.create("python", "one")

    with pytest.raises(ApiError) as caught:
        await node.checkpoint("one")

    assert "quota_exceeded" == caught.value.code
    assert [] == list((node.settings.home / "checkpoints").iterdir())


async def test_a_failed_restore_leaves_the_sandbox_as_it_was(
    node: Node, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    record = await node.checkpoint("one")
    await output(node, "one", "echo after > /workspace/f")
    engine.fail_next = "restore"

    with pytest.raises(ApiError):
        await node.restore("one", record.id)

    assert "after\n" == await output(node, "one", "cat /workspace/f")
    assert 1 == len(engine.machines)


async def test_a_child_is_not_promoted_over_a_stranger(node: Node) -> None:
    await node.create("python", "one")
    await node.fork("one", ["child"])
    await node.terminate("one")
    await node.create("python", "one")

    with pytest.raises(ApiError) as caught:
        await node.promote("child")

    assert 409 == caught.value.status
    assert ["child", "one"] == [record.id for record in node.list_sandboxes()]


async def test_a_child_of_an_ended_parent_takes_its_id(node: Node, engine: FakeEngine) -> None:
    await node.create("python", "one")
    await node.fork("one", ["child"])
    await node.terminate("one")

    await node.promote("child")

    assert ["one"] == [record.id for record in node.list_sandboxes()]
    assert "one\n" == await output(node, "one", "hostname")
    assert 1 == len(engine.machines)
