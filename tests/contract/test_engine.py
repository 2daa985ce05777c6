"""What every engine promises. An engine is done when this passes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil

import pytest

from mitos.engine.base import EngineError, EngineFault, MachineEnd, Resources, Snapshot
from mitos.host.rootfs import RootFilesystem, RootKind
from tests.contract.conftest import Subject
from tests.contract.guest import Client

_PROMPT_S = 5.0
_WATCHED_S = 0.5
"""An engine asks a new kernel to tell its end; on a busy host that is heard a moment later."""


async def test_an_engine_that_started_says_it_is_usable(subject: Subject) -> None:
    probe = await subject.engine.probe()

    assert probe.usable
    assert probe.engine == subject.engine.name
    assert all(check.remediation for check in probe.checks if not check.passed)
    assert subject.engine.snapshot_format.startswith(subject.engine.name)


async def test_an_engine_says_what_it_boots_and_what_is_different(subject: Subject) -> None:
    facts = subject.engine.facts

    assert subject.spec.rootfs.kind in facts.root_kinds
    assert facts.title
    assert facts.summary
    assert all(difference.text.endswith(".") for difference in facts.differences)


async def test_a_root_filesystem_of_another_kind_is_refused_with_what_to_do(
    subject: Subject,
) -> None:
    path, known = subject.spec.rootfs.path, subject.engine.facts.root_kinds
    others = [RootFilesystem(kind, path) for kind in RootKind if kind not in known]

    for rootfs in others:
        spec = dataclasses.replace(subject.spec, rootfs=rootfs)
        for attempt in (subject.engine.boot, subject.engine.prepare):
            with pytest.raises(EngineError, match=str(path)) as caught:
                await attempt(spec)
            assert caught.value.fault is EngineFault.UNSUPPORTED
            assert known[0].value in caught.value.remediation
    _assert_nothing_left(subject)


async def test_a_booted_machine_answers(subject: Subject) -> None:
    machine = await subject.boot()

    await machine.write("/workspace/a", b"hello")

    assert await machine.read("/workspace/a") == b"hello"
    assert machine.machine.spec == subject.spec
    assert set(machine.machine.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


async def test_the_link_carries_much_both_ways(subject: Subject) -> None:
    machine = await subject.boot()
    content = os.urandom(24 << 20)

    await machine.write("/workspace/big", content)

    assert await machine.read("/workspace/big") == content


async def test_a_checkpoint_leaves_the_machine_running(subject: Subject) -> None:
    machine = await subject.boot()

    snapshot = await machine.checkpoint(subject.engine, subject.folder())
    await machine.write("/workspace/after", b"1")

    assert await machine.read("/workspace/after") == b"1"
    assert snapshot.spec == subject.spec
    assert snapshot.directory.is_dir()


async def test_restored_machines_go_on_from_the_instant_at_the_same_time(subject: Subject) -> None:
    parent = await subject.boot()
    await parent.write("/workspace/before", b"seen by all")
    blanks = await asyncio.gather(*(subject.engine.prepare(subject.spec) for _ in range(4)))
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    await parent.write("/workspace/after", b"seen by the parent alone")

    machines = await asyncio.gather(*(subject.engine.restore(b, snapshot) for b in blanks))
    children = [await subject.connect(machine) for machine in machines]

    for child in children:
        assert await child.read("/workspace/before") == b"seen by all"
        assert not await child.exists("/workspace/after")
    assert len({machine.id for machine in machines} | {parent.machine.id}) == 5


async def test_siblings_do_not_see_one_another(subject: Subject) -> None:
    parent = await subject.boot()
    await parent.write("/workspace/shared", b"old")
    first, second = await subject.fork(parent), await subject.fork(parent)

    await first.write("/workspace/mine", b"1")
    await first.write("/workspace/shared", b"new")

    for other in (parent, second):
        assert not await other.exists("/workspace/mine")
        assert await other.read("/workspace/shared") == b"old"


async def test_a_snapshot_may_be_deleted_once_it_is_restored(subject: Subject) -> None:
    parent = await subject.boot()
    content = os.urandom(32 << 20)
    await parent.write("/workspace/big", content)
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    blank = await subject.engine.prepare(subject.spec)

    machine = await subject.engine.restore(blank, snapshot)
    shutil.rmtree(snapshot.directory)
    child = await subject.connect(machine)

    assert await child.read("/workspace/big") == content


async def test_a_snapshot_outlives_its_machine(subject: Subject) -> None:
    parent = await subject.boot()
    await parent.write("/workspace/a", b"1")
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    await subject.end(parent)

    blank = await subject.engine.prepare(subject.spec)
    child = await subject.connect(await subject.engine.restore(blank, snapshot))

    assert await child.read("/workspace/a") == b"1"


async def test_children_can_be_forked_again(subject: Subject) -> None:
    machine = await subject.boot()
    for generation in range(4):
        await machine.write(f"/workspace/{generation}", str(generation).encode())
        child = await subject.fork(machine)
        await subject.end(machine)
        machine = child

    for generation in range(4):
        assert await machine.read(f"/workspace/{generation}") == str(generation).encode()


async def test_machines_are_checkpointed_at_the_same_time(subject: Subject) -> None:
    machines = [await subject.boot() for _ in range(3)]
    for number, machine in enumerate(machines):
        await machine.write("/workspace/number", str(number).encode())

    snapshots = await asyncio.gather(
        *(machine.checkpoint(subject.engine, subject.folder()) for machine in machines)
    )

    for number, snapshot in enumerate(snapshots):
        blank = await subject.engine.prepare(subject.spec)
        child = await subject.connect(await subject.engine.restore(blank, snapshot))
        assert await child.read("/workspace/number") == str(number).encode()


async def test_a_paused_machine_stands_still_until_it_is_resumed(subject: Subject) -> None:
    machine = await subject.boot()

    await subject.engine.pause(machine.machine)
    await subject.engine.pause(machine.machine)
    reading = asyncio.ensure_future(machine.exists("/workspace"))
    done, _ = await asyncio.wait({reading}, timeout=0.3)
    assert not done
    await subject.engine.resume(machine.machine)
    await subject.engine.resume(machine.machine)

    assert await asyncio.wait_for(reading, _PROMPT_S)


async def test_a_checkpoint_of_a_paused_machine_leaves_it_paused(subject: Subject) -> None:
    machine = await subject.boot()
    await machine.write("/workspace/a", b"1")
    async with machine.link.frozen(_PROMPT_S):
        await subject.engine.pause(machine.machine)
        snapshot = await subject.engine.checkpoint(machine.machine, subject.folder())

    reading = asyncio.ensure_future(machine.exists("/workspace"))
    done, _ = await asyncio.wait({reading}, timeout=0.3)
    assert not done
    blank = await subject.engine.prepare(subject.spec)
    child = await subject.connect(await subject.engine.restore(blank, snapshot))

    assert await child.read("/workspace/a") == b"1"
    await subject.engine.resume(machine.machine)
    assert await asyncio.wait_for(reading, _PROMPT_S)


async def test_destroy_ends_a_machine_for_everybody_who_waits(subject: Subject) -> None:
    machine = await subject.boot()
    waiting = [asyncio.ensure_future(machine.machine.wait_end()) for _ in range(2)]

    await asyncio.gather(*(subject.engine.destroy(machine.machine) for _ in range(2)))
    await subject.engine.destroy(machine.machine)

    ends = await asyncio.wait_for(asyncio.gather(*waiting), _PROMPT_S)
    assert ends == [MachineEnd.DESTROYED] * 2
    assert await machine.machine.wait_end() is MachineEnd.DESTROYED
    assert await machine.machine.link.read() == b""
    _assert_nothing_left(subject)


async def test_a_destroyed_machine_refuses_orders(subject: Subject) -> None:
    machine = await subject.boot()
    await subject.engine.destroy(machine.machine)
    folder = subject.folder()

    with pytest.raises(EngineError):
        await subject.engine.checkpoint(machine.machine, folder)
    with pytest.raises(EngineError):
        await subject.engine.pause(machine.machine)
    with pytest.raises(EngineError):
        await subject.engine.resume(machine.machine)
    with pytest.raises(EngineError):
        await machine.machine.usage()
    with pytest.raises(ConnectionError):
        await machine.machine.link.write(b"x")
    assert not folder.exists()


async def test_destroying_a_paused_machine_works(subject: Subject) -> None:
    machine = await subject.boot()
    await subject.engine.pause(machine.machine)

    await asyncio.wait_for(subject.engine.destroy(machine.machine), _PROMPT_S)

    _assert_nothing_left(subject)


async def test_destroy_wins_over_a_checkpoint(subject: Subject) -> None:
    machine = await subject.boot()
    await machine.write("/workspace/big", os.urandom(32 << 20))
    folder = subject.folder()
    checkpoint = asyncio.ensure_future(subject.engine.checkpoint(machine.machine, folder))
    await asyncio.sleep(0.005)

    await asyncio.wait_for(subject.engine.destroy(machine.machine), _PROMPT_S)

    result = (await asyncio.wait_for(asyncio.gather(checkpoint, return_exceptions=True), 10))[0]
    assert isinstance(result, (EngineError, Snapshot))
    assert folder.exists() == isinstance(result, Snapshot)
    _assert_nothing_left(subject)


async def test_destroying_an_unused_blank_leaves_nothing(subject: Subject) -> None:
    blank = await subject.engine.prepare(subject.spec)

    await subject.engine.destroy(blank)
    await subject.engine.destroy(blank)

    _assert_nothing_left(subject)


async def test_a_blank_can_be_used_once(subject: Subject) -> None:
    parent = await subject.boot()
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    blank = await subject.engine.prepare(subject.spec)
    await subject.engine.destroy(blank)

    with pytest.raises(EngineError):
        await subject.engine.restore(blank, snapshot)


async def test_a_blank_of_another_spec_is_refused_and_gone(subject: Subject) -> None:
    parent = await subject.boot()
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    await subject.end(parent)
    other = type(subject.spec)(subject.spec.rootfs, subject.spec.guest, Resources(memory_mib=300))
    blank = await subject.engine.prepare(other)

    with pytest.raises(EngineError):
        await subject.engine.restore(blank, snapshot)

    _assert_nothing_left(subject)


async def test_a_snapshot_that_is_gone_fails_the_restore_and_leaves_nothing(
    subject: Subject,
) -> None:
    parent = await subject.boot()
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    await subject.end(parent)
    blank = await subject.engine.prepare(subject.spec)
    shutil.rmtree(snapshot.directory)

    with pytest.raises(EngineError):
        await subject.engine.restore(blank, snapshot)

    _assert_nothing_left(subject)


async def test_a_failed_checkpoint_leaves_the_machine_running(subject: Subject) -> None:
    machine = await subject.boot()
    in_the_way = subject.folder()
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("a file where a folder must be made")

    with pytest.raises(EngineError):
        await machine.checkpoint(subject.engine, in_the_way / "snapshot")

    await machine.write("/workspace/a", b"1")
    assert await machine.read("/workspace/a") == b"1"


async def test_the_end_of_pid_1_is_noticed(subject: Subject) -> None:
    machine = await subject.boot()
    ending = asyncio.ensure_future(machine.machine.wait_end())
    await asyncio.sleep(_WATCHED_S)

    await machine.machine.link.write(b"\xff" * 64)  # forbidden by the link: the agent exits

    assert await asyncio.wait_for(ending, _PROMPT_S) is MachineEnd.EXITED
    await subject.engine.destroy(machine.machine)
    assert await machine.machine.wait_end() is MachineEnd.EXITED
    _assert_nothing_left(subject)


async def test_the_end_of_pid_1_of_a_restored_machine_is_noticed(subject: Subject) -> None:
    child = await subject.fork(await subject.boot())
    await asyncio.sleep(_WATCHED_S)

    await child.machine.link.write(b"\xff" * 64)

    assert await asyncio.wait_for(child.machine.wait_end(), _PROMPT_S) is MachineEnd.EXITED


async def test_waiting_for_the_end_can_be_given_up(subject: Subject) -> None:
    machine = await subject.boot()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(machine.machine.wait_end(), 0.05)

    await subject.engine.destroy(machine.machine)

    assert await machine.machine.wait_end() is MachineEnd.DESTROYED


async def test_nobody_but_the_node_has_stopped_a_machine(subject: Subject) -> None:
    """A paused machine is at rest, and one that has ended has no process."""
    machine = (await subject.boot()).machine
    assert await machine.stopped() is None
    await subject.engine.pause(machine)
    assert await machine.stopped() is None
    await subject.engine.resume(machine)
    assert await machine.stopped() is None
    await subject.engine.destroy(machine)

    assert await machine.stopped() is None


async def test_usage_is_plausible(subject: Subject) -> None:
    machine = await subject.boot()

    usage = await machine.machine.usage()

    assert 0 < usage.memory_bytes < subject.spec.resources.memory_mib << 20
    assert 0 <= usage.cpu_seconds < 60


async def test_only_an_engine_that_shares_memory_reports_some(subject: Subject) -> None:
    child = await subject.fork(await subject.boot())

    usage = await child.machine.usage()

    assert 0 <= usage.shared_bytes <= usage.memory_bytes
    assert subject.engine.facts.shares_memory or usage.shared_bytes == 0


async def test_giving_up_a_checkpoint_leaves_the_machine_usable(subject: Subject) -> None:
    machine = await subject.boot()
    folder = subject.folder()
    checkpoint = asyncio.ensure_future(machine.checkpoint(subject.engine, folder))
    await asyncio.sleep(0.005)

    checkpoint.cancel()
    await asyncio.gather(checkpoint, return_exceptions=True)

    await _assert_forkable(subject, machine)


async def test_giving_up_a_restore_leaves_nothing(subject: Subject) -> None:
    parent = await subject.boot()
    snapshot = await parent.checkpoint(subject.engine, subject.folder())
    await subject.end(parent)
    blank = await subject.engine.prepare(subject.spec)
    restore = asyncio.ensure_future(subject.engine.restore(blank, snapshot))
    await asyncio.sleep(0.005)

    if restore.cancel():
        with pytest.raises(asyncio.CancelledError):
            await restore
    else:
        await subject.engine.destroy(await restore)

    _assert_nothing_left(subject)


async def test_giving_up_a_prepare_leaves_nothing(subject: Subject) -> None:
    preparing = asyncio.ensure_future(subject.engine.prepare(subject.spec))
    await asyncio.sleep(0.04)

    if preparing.cancel():
        with pytest.raises(asyncio.CancelledError):
            await preparing
    else:
        await subject.engine.destroy(await preparing)

    _assert_nothing_left(subject)


async def test_close_destroys_everything(subject: Subject) -> None:
    machine = await subject.boot()
    await subject.engine.prepare(subject.spec)

    await subject.engine.close()
    await subject.engine.close()

    assert await machine.machine.wait_end() is MachineEnd.DESTROYED
    _assert_nothing_left(subject)
    with pytest.raises(EngineError):
        await subject.engine.prepare(subject.spec)


async def _assert_forkable(subject: Subject, machine: Client) -> None:
    await machine.write("/workspace/alive", b"1")
    child = await subject.fork(machine)
    assert await child.read("/workspace/alive") == b"1"


def _assert_nothing_left(subject: Subject) -> None:
    assert subject.leftovers is None or subject.leftovers.sandboxes() == []
