"""A node that takes no new work and says what is left."""

from __future__ import annotations

import asyncio

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.intake import Kind, Left
from mitos.node.lifecycle import drain as drain_module
from mitos.node.phase import Phase
from mitos.wire.errors import ApiError
from tests.node.conftest import Node, StartNode, output

WANTED = "checkpoint failed because the test wanted it to"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "LOOK_S", 0.01)


async def until_nothing_is_left(node: Node) -> None:
    while node.running.drain.left():
        await asyncio.sleep(0.01)


async def test_new_work_is_refused_and_what_is_there_is_served(node: Node) -> None:
    await node.create("python", "one", idempotency_key="k")
    node.running.drain.begin(hibernates=False)

    for call in (
        lambda: node.create("python", "two"),
        lambda: node.fork("one", ["two"]),
        lambda: node.fork_some("one", ["two"]),
        lambda: node.templates.create("base"),
    ):
        with pytest.raises(ApiError, match="drained") as caught:
            await call()
        assert 503 == caught.value.status
        assert "retry_after_ms" not in caught.value.context
    assert "hi\n" == await output(node, "one", "echo hi")
    await node.templates.create("python")
    assert "one" == (await node.create("python", "other", idempotency_key="k")).id
    assert ["one"] == [each.id for each in node.list_sandboxes()]


async def test_it_can_be_ended(node: Node) -> None:
    node.running.drain.begin(hibernates=True)
    await node.running.drain.end()

    await node.create("python", "one")

    assert not node.running.drain.is_on
    assert not node.running.drain.hibernates


async def test_open_calls_are_left_until_they_end(node: Node) -> None:
    await node.create("python", "one")
    await node.create("python", "two")
    node.running.drain.begin(hibernates=False)

    sandbox = node._parts.registry.find("local", "one")
    async with sandbox.session(), sandbox.session():
        assert [Left(Kind.SANDBOX, "one", "has 2 open calls")] == node.running.drain.left()
    assert [] == node.running.drain.left()


async def test_work_that_was_taken_before_is_left_until_it_is_done(start_node: StartNode) -> None:
    node = await start_node()
    building = asyncio.create_task(node.templates.create("python"))
    await asyncio.sleep(0)
    node.running.drain.begin(hibernates=False)

    left = node.running.drain.left()
    await building

    assert [Left(Kind.TEMPLATE, "python", "is being built")] == left
    assert [] == node.running.drain.left()


async def test_every_sandbox_is_hibernated_and_again_when_a_call_woke_it(node: Node) -> None:
    await node.create("python", "one")
    await node.create("python", "two")
    await node.pause("two")

    node.running.drain.begin(hibernates=True)
    await until_nothing_is_left(node)
    slept = [each.phase for each in node.list_sandboxes()]
    answered = await output(node, "one", "echo hi")
    await until_nothing_is_left(node)

    assert [Phase.HIBERNATED] * 2 == slept
    assert "hi\n" == answered
    assert [Phase.HIBERNATED] * 2 == [each.phase for each in node.list_sandboxes()]


async def test_one_that_cannot_be_hibernated_is_left_with_the_reason(
    node: Node, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    engine.fail_next = "checkpoint"

    node.running.drain.begin(hibernates=True)
    while "cannot" not in (left := node.running.drain.left())[0].why:
        await asyncio.sleep(0.01)

    assert [Left(Kind.SANDBOX, "one", f"cannot be hibernated: {WANTED}")] == left
    assert "hi\n" == await output(node, "one", "echo hi")
