"""Sandboxes that outlive their server, over the fake engine. `tests/crash` kills real servers."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from mitos.engine.base import EngineError, EngineFault, Machine, MachineEnd, MachineSpec
from mitos.engine.fake import FakeEngine
from mitos.engine.fake.engine import FakeMachine
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.lifecycle import recovery, use
from mitos.node.phase import Phase
from mitos.node.settings import OnStop
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.conftest import Node, StartNode, output


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A node whose sandboxes outlive it."""
    started = await start_node(on_stop=OnStop.LEAVE)
    await started.templates.create("python")
    return started


async def restart(node: Node, start_node: StartNode, **settings: object) -> Node:
    await node.close()
    return await start_node(**{"on_stop": OnStop.LEAVE, **settings})


def machine_of(node: Node, engine: FakeEngine, sandbox_id: str) -> FakeMachine:
    machine_id = node._parts.registry.find("local", sandbox_id).row.machine_id
    assert machine_id is not None
    return engine.host.machines[machine_id]


async def test_every_sandbox_is_what_it_was(node: Node, start_node: StartNode) -> None:
    for name in ("ready", "paused", "asleep"):
        await node.create("python", name)
        await output(node, name, f"echo {name} > /tmp/name")
    node.set_timeout("ready", 600)
    await node.fork("ready", ["child"])
    kept = await node.checkpoint("ready", "first")
    await node.pause("paused")
    await node.hibernate("asleep")
    before = node.list_sandboxes()

    again = await restart(node, start_node)

    assert before == again.list_sandboxes()
    assert [kept] == again.list_checkpoints("ready")
    assert ["ready", "child"] == [each.id for each in again.family("child")]
    await again.resume("paused")
    for name, word in (("ready", "ready"), ("child", "ready"), ("asleep", "asleep")):
        assert f"{word}\n" == await output(again, name, "cat /tmp/name")
    assert "paused\n" == await output(again, "paused", "cat /tmp/name")


async def test_a_paused_sandbox_stands_still_until_it_is_resumed(
    node: Node, start_node: StartNode, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    await node.pause("one")

    again = await restart(node, start_node)

    assert machine_of(again, engine, "one").is_paused
    with pytest.raises(ApiError):
        again.agent("one")
    await again.fork("one", ["child"])
    assert "ok\n" == await output(again, "child", "echo ok")
    await again.resume("one")
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_servers_can_follow_each_other(node: Node, start_node: StartNode) -> None:
    await node.create("python", "one")
    for number in range(5):
        node = await restart(node, start_node)
        assert f"{number}\n" == await output(node, "one", f"echo {number}")


async def test_what_no_row_names_is_swept(
    node: Node, start_node: StartNode, engine: FakeEngine, tmp_path: Path
) -> None:
    await node.create("python", "one")
    stray = await engine.boot(MachineSpec(RootFilesystem(RootKind.FOLDER, tmp_path), tmp_path))
    await engine.leave(stray)

    again = await restart(node, start_node)

    assert stray.id not in engine.host.machines
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_a_machine_that_ended_meanwhile_is_told_with_its_reason(
    node: Node, start_node: StartNode, engine: FakeEngine
) -> None:
    await node.create("python", "one")
    await node.create("python", "two")
    machine = machine_of(node, engine, "one")
    await node.close()
    await machine.stop(MachineEnd.OUT_OF_MEMORY)

    again = await start_node(on_stop=OnStop.LEAVE)

    with pytest.raises(ApiError) as caught:
        again.agent("one")
    assert "memory limit" in caught.value.cause
    assert ["two"] == [each.id for each in again.list_sandboxes()]


async def test_machines_of_a_later_engine_stop_the_start_and_nothing_is_touched(
    node: Node, start_node: StartNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        await node.create("python", name)
    later = machine_of(node, engine, "two").id
    await node.close()

    async def adopt(machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:
        if machine_id == later:
            raise EngineError("of a later release", fault=EngineFault.UNAVAILABLE)
        return await FakeEngine.adopt(engine, machine_id, spec)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "adopt", adopt)
        with pytest.raises(ApiError, match="cannot be taken over"):
            await start_node(on_stop=OnStop.END)

    again = await start_node(on_stop=OnStop.LEAVE)
    for name in ("one", "two", "three"):
        assert "ok\n" == await output(again, name, "echo ok")


async def test_sandboxes_of_another_engine_are_not_touched(
    node: Node, start_node: StartNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.create("python", "one")
    await node.create("python", "asleep")
    await node.hibernate("asleep")
    await node.close()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "name", "other")
        with pytest.raises(ApiError, match="of the fake engine") as caught:
            await start_node(on_stop=OnStop.END)
    assert "--engine fake" in caught.value.remediation

    again = await start_node(on_stop=OnStop.LEAVE)
    for name in ("one", "asleep"):
        assert "ok\n" == await output(again, name, "echo ok")


async def test_a_host_without_descriptors_costs_no_sandbox(
    node: Node, start_node: StartNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.create("python", "one")
    await node.close()

    async def adopt(machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:
        raise EngineError("it cannot be followed") from OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "adopt", adopt)
        with pytest.raises(ApiError, match="cannot be taken over"):
            await start_node(on_stop=OnStop.END)

    again = await start_node(on_stop=OnStop.LEAVE)
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_a_start_that_is_stopped_ends_nothing(
    node: Node, start_node: StartNode, engine: FakeEngine
) -> None:
    for name in ("one", "two"):
        await node.create("python", name)
    await node.close()
    hold = engine.hold_next("adopt")
    starting = asyncio.create_task(start_node(on_stop=OnStop.END))
    await hold.reached.wait()
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    again = await start_node(on_stop=OnStop.LEAVE)
    for name in ("one", "two"):
        assert "ok\n" == await output(again, name, "echo ok")


@pytest.mark.parametrize("method", ["adopt_blanks", "sweep"])
async def test_a_start_that_fails_ends_nothing(
    node: Node,
    start_node: StartNode,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    await node.create("python", "one")
    await node.close()

    async def fail(*_: object) -> None:
        raise EngineError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(engine, method, fail)
        with pytest.raises((ApiError, EngineError)):
            await start_node(on_stop=OnStop.END)

    again = await start_node(on_stop=OnStop.LEAVE)
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_a_sandbox_that_was_renamed_halfway_is_itself_again(
    node: Node, start_node: StartNode
) -> None:
    await node.create("python", "one")
    sandbox = node._parts.registry.find("local", "one")
    await node._parts.supervisor._launcher.rename(sandbox.awake, "other")
    assert "other\n" == await output(node, "one", "hostname")

    again = await restart(node, start_node)
    async with asyncio.timeout(10):
        while await output(again, "one", "hostname") != "one\n":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("was_paused", [False, True])
async def test_half_a_pause_is_what_the_machine_is(
    node: Node, start_node: StartNode, engine: FakeEngine, *, was_paused: bool
) -> None:
    """The server died between the machine and the row."""
    await node.create("python", "one")
    node.set_timeout("one", 600)
    machine = machine_of(node, engine, "one")
    if was_paused:
        await node.pause("one")
        await engine.resume(machine)
    else:
        sandbox = node._parts.registry.find("local", "one")
        async with node._parts.suspension._freezer.frozen(sandbox):
            await engine.pause(machine)

    again = await restart(node, start_node)

    (record,) = again.list_sandboxes()
    assert (Phase.READY if was_paused else Phase.PAUSED) is record.phase
    await again.resume("one")
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_a_machine_that_comes_back_as_another_one_is_found_again(
    node: Node,
    start_node: StartNode,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As an engine does that does not know whether it had paused it."""
    await node.create("python", "one")
    await output(node, "one", "echo kept > /tmp/file")
    adopt = engine.adopt

    async def copy(machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:
        found = await adopt(machine_id, spec)
        assert not isinstance(found, MachineEnd)
        snapshot = await engine.checkpoint(found, tmp_path / "copy")
        await engine.leave(found)
        return await engine.restore(await engine.prepare(spec), snapshot)

    first = machine_of(node, engine, "one").id
    with monkeypatch.context() as patch:
        patch.setattr(engine, "adopt", copy)
        again = await restart(node, start_node)

    assert first != machine_of(again, engine, "one").id
    for _ in range(2):
        assert "kept\n" == await output(again, "one", "cat /tmp/file")
        again = await restart(again, start_node)
    assert "kept\n" == await output(again, "one", "cat /tmp/file")


async def test_deadlines_go_on(node: Node, start_node: StartNode, clock: ManualClock) -> None:
    for name in ("early", "late"):
        await node.create("python", name)
    node.set_timeout("early", 60)
    node.set_timeout("late", 600)
    await node.close()
    await clock.advance(100)

    again = await start_node(on_stop=OnStop.LEAVE)
    await clock.advance(0)

    assert ["late"] == [each.id for each in again.list_sandboxes()]
    await clock.advance(501)
    assert [] == again.list_sandboxes()


async def test_the_idle_clock_goes_on(
    start_node: StartNode, clock: ManualClock, engine: FakeEngine
) -> None:
    settings = {"idle_timeout_s": 100, "on_stop": OnStop.LEAVE}
    node = await start_node(**settings)
    await node.templates.create("python")
    await node.create("python", "one")
    await clock.advance(70)
    await node.close()

    again = await start_node(**settings)
    await clock.advance(25)
    assert ["one"] == [each.id for each in again.list_sandboxes()]
    await clock.advance(5)

    assert [] == again.list_sandboxes()


async def test_a_use_is_written_down_and_dated_later(
    node: Node, start_node: StartNode, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use, "WRITE_S", 0.01)
    again = await restart(node, start_node)
    await again.create("python", "one")
    async with asyncio.timeout(10):
        while not (uses := again._parts.state.sandboxes.last_uses()):
            await asyncio.sleep(0.01)

    assert [clock.now() + 0.01] == list(uses.values())


async def test_an_open_call_is_told_that_the_server_stops(node: Node) -> None:
    await node.create("python", "one")
    running = asyncio.create_task(output(node, "one", "sleep 30"))
    await asyncio.sleep(0.05)

    await node.close()

    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(running, 2)
    assert (503, "the server is being restarted") == (caught.value.status, caught.value.message)


async def test_what_is_being_made_when_the_server_stops_is_gone(
    node: Node, start_node: StartNode, engine: FakeEngine
) -> None:
    hold = engine.hold_next("restore")
    creating = asyncio.create_task(node.create("python", "one"))
    await hold.reached.wait()
    closing = asyncio.create_task(node.close())
    await asyncio.sleep(0.05)
    hold.let_go.set()

    with pytest.raises(ApiError):
        await creating
    await closing
    again = await start_node(on_stop=OnStop.LEAVE)
    assert [] == again.list_sandboxes()
    assert {} == engine.host.machines


async def test_a_stopped_server_can_hibernate_all(
    start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node(on_stop=OnStop.HIBERNATE)
    await node.templates.create("python")
    for name in ("one", "two", "paused"):
        await node.create("python", name)
        await output(node, name, f"echo {name} > /tmp/name")
    await node.pause("paused")
    running = asyncio.create_task(output(node, "two", "sleep 30"))
    await asyncio.sleep(0.05)

    again = await restart(node, start_node)

    with pytest.raises(ApiError, match="is being restarted"):
        await running
    assert {Phase.HIBERNATED} == {each.phase for each in again.list_sandboxes()}
    assert {} == engine.host.machines
    for name in ("one", "two", "paused"):
        assert f"{name}\n" == await output(again, name, "cat /tmp/name")


async def test_what_cannot_be_hibernated_is_left_running(
    start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node(on_stop=OnStop.HIBERNATE)
    await node.templates.create("python")
    await node.create("python", "one")
    engine.fail_next = "checkpoint"

    again = await restart(node, start_node)

    (record,) = again.list_sandboxes()
    assert Phase.READY is record.phase
    assert "ok\n" == await output(again, "one", "echo ok")


async def test_a_familys_budget_is_shared_again(start_node: StartNode) -> None:
    settings = {"guest_forks": 3, "on_stop": OnStop.LEAVE}
    node = await start_node(**settings)
    await node.templates.create("python")
    await node.create("python", "one")
    sandbox = node._parts.registry.find("local", "one")
    await node._parts.creation.fork_from_inside(sandbox, ["child"])

    again = await restart(node, start_node, **settings)

    one, child = (again._parts.registry.find("local", name) for name in ("one", "child"))
    assert one.budget is child.budget
    assert 1 == one.budget.forks_used


async def test_a_reboot_of_the_host_is_named(
    node: Node,
    start_node: StartNode,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await node.create("python", "one")
    await node.create("python", "asleep")
    await node.hibernate("asleep")
    await node.close()
    await engine.host.machines.popitem()[1].stop()
    monkeypatch.setattr(recovery, "boot_id", lambda: "another")

    again = await start_node(on_stop=OnStop.LEAVE)

    with pytest.raises(ApiError) as caught:
        again.agent("one")
    assert "its host was restarted while it ran" == caught.value.cause
    assert ["asleep"] == [each.id for each in again.list_sandboxes()]


async def test_what_was_kept_ready_is_taken_over(
    start_node: StartNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed server leaves its pool; one that is stopped does not."""
    settings = {"warm_per_template": 2, "blanks_per_spec": 3, "on_stop": OnStop.LEAVE}
    node = await start_node(**settings)
    await node.templates.create("python")
    await node.create("python", "one")
    pool = node._parts.templates._pool
    async with asyncio.timeout(10):
        while sum(map(len, pool._warm.values())) < 2 or len(engine.host.blanks) < 3:
            await asyncio.sleep(0.01)
    machines, blanks = set(engine.host.machines), set(engine.host.blanks)

    async def die(item: object) -> None:
        """A killed server destroys nothing."""

    with monkeypatch.context() as killed:
        killed.setattr(engine, "destroy", die)
        await node.close()

    again = await start_node(**settings)

    assert (machines, blanks) == (set(engine.host.machines), set(engine.host.blanks))
    await again.create("python", "two")
    assert machine_of(again, engine, "two").id in machines
    assert "two\n" == await output(again, "two", "hostname")
    assert "one\n" == await output(again, "one", "hostname")


async def test_a_repeated_checkpoint_is_the_one_that_was_made(
    node: Node, start_node: StartNode
) -> None:
    await node.create("python", "one")
    await node.create("python", "other")
    kept = await node.checkpoint("one", "first", idempotency_key="key")

    again = await restart(node, start_node)

    assert kept == await again.checkpoint("one", "first", idempotency_key="key")
    assert [kept] == again.list_checkpoints("one")
    assert kept.id != (await again.checkpoint("other", idempotency_key="key")).id
    again.delete_checkpoint("one", kept.id)
    assert kept.id != (await again.checkpoint("one", idempotency_key="key")).id


async def test_a_repeated_promote_happens_once(node: Node, start_node: StartNode) -> None:
    await node.create("python", "one")
    await node.fork("one", ["child"])
    promoted = await node.promote("child", idempotency_key="key")

    again = await restart(node, start_node)

    assert promoted == await again.promote("child", idempotency_key="key")
    with pytest.raises(ApiError, match="no sandbox"):
        await again.promote("child")
