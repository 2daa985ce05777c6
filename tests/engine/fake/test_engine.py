"""What the fake engine promises beyond the contract of all engines."""

from __future__ import annotations

import asyncio
import pickle
import time

import pytest

from mitos.engine.base import EngineError, MachineEnd, Snapshot
from mitos.engine.fake import FakeEngine, persist
from tests.engine.fake.conftest import Bench, Sandbox


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: b"other!!!" + data[8:],
        lambda data: data + b"x",
    ],
    ids=["cut", "no header", "empty", "a bit", "magic", "longer"],
)
async def test_a_damaged_snapshot_is_refused(
    bench: Bench, sandbox: Sandbox, damage: object
) -> None:
    snapshot = await bench.checkpoint(sandbox)
    file = snapshot.directory / "guest"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]

    with pytest.raises(EngineError):
        await bench.restore(snapshot)

    assert [sandbox.machine.id] == list(bench.engine.machines)


@pytest.mark.parametrize("body", [b"no pickle", pickle.dumps("another value"), b"cnosuch\nname\n."])
async def test_a_whole_snapshot_of_something_else_is_refused(
    bench: Bench, sandbox: Sandbox, body: bytes
) -> None:
    snapshot = await bench.checkpoint(sandbox)
    persist.write(snapshot.directory, body)

    with pytest.raises(EngineError):
        await bench.restore(snapshot)


async def test_a_snapshot_can_be_restored_by_another_engine(bench: Bench, sandbox: Sandbox) -> None:
    await sandbox.sh("echo kept > f")
    snapshot = await bench.checkpoint(sandbox)
    other = FakeEngine()
    await other.start()
    try:
        machine = await other.restore(await other.prepare(bench.spec), snapshot)
        child = bench.open(machine)
        await child.identify()

        assert "kept\n" == await child.out("cat f")
    finally:
        await other.close()


async def test_running_commands_go_on_in_every_child_from_the_same_instant(
    bench: Bench, sandbox: Sandbox
) -> None:
    counter = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.02; done"
    await sandbox.sh(f"nohup sh -c '{counter}' >/dev/null 2>&1 &")
    await asyncio.sleep(0.2)
    snapshot = await bench.checkpoint(sandbox)
    at_fork = int(await sandbox.out("cat /tmp/n"))
    await asyncio.sleep(0.5)

    children = [await bench.restore(snapshot) for _ in range(2)]
    for child in children:
        await child.identify()
    first = [int(await child.out("cat /tmp/n")) for child in children]
    await asyncio.sleep(0.3)
    later = [int(await child.out("cat /tmp/n")) for child in children]

    assert all(at_fork - 1 <= number <= at_fork + 10 for number in first)
    assert all(after > before for before, after in zip(first, later, strict=True))


async def test_a_child_goes_on_after_the_loop_it_was_in(bench: Bench, sandbox: Sandbox) -> None:
    loop = "for i in 1 2 3; do sleep 0.1; done; echo over > /tmp/end"
    await sandbox.sh(f"sh -c '{loop}' >/dev/null 2>&1 &")

    child = await bench.fork(sandbox)
    await sandbox.sh("kill 2")

    async with asyncio.timeout(5):
        while await child.out("cat /tmp/end 2>/dev/null") != "over\n":
            await asyncio.sleep(0.02)


async def test_open_streams_of_the_parent_survive_a_checkpoint(
    bench: Bench, sandbox: Sandbox
) -> None:
    running = asyncio.ensure_future(sandbox.sh("sleep 0.2; echo here; cat f"))
    await sandbox.sh("echo file > f")
    await asyncio.sleep(0.05)

    await bench.fork(sandbox)

    assert "here\nfile\n" == (await running).stdout


@pytest.mark.parametrize("method", ["boot", "prepare", "checkpoint", "restore"])
async def test_a_test_can_make_the_next_call_fail(
    bench: Bench, sandbox: Sandbox, method: str
) -> None:
    bench.engine.fail_next = method

    async def boot_and_fork() -> None:
        await bench.boot()
        await bench.fork(sandbox)

    with pytest.raises(EngineError, match="the test wanted it"):
        await boot_and_fork()

    await bench.fork(sandbox)
    assert "ok\n" == await sandbox.out("echo ok")


async def test_a_failed_checkpoint_leaves_no_folder(bench: Bench, sandbox: Sandbox) -> None:
    bench.engine.fail_next = "checkpoint"
    folder = bench.folder()

    with pytest.raises(EngineError):
        await bench.engine.checkpoint(sandbox.machine, folder)

    assert not folder.exists()


async def test_a_muted_child_never_answers_its_identity(bench: Bench, sandbox: Sandbox) -> None:
    snapshot = await bench.checkpoint(sandbox)
    bench.engine.mute_next_identify = True
    silent, spoken = await bench.restore(snapshot), await bench.restore(snapshot)

    await spoken.identify()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(silent.identify(), 0.2)


@pytest.mark.parametrize("why", [MachineEnd.OUT_OF_MEMORY, MachineEnd.LOST])
async def test_a_test_can_end_a_machine_for_any_reason(
    bench: Bench, sandbox: Sandbox, why: MachineEnd
) -> None:
    waiting = asyncio.ensure_future(sandbox.machine.wait_end())
    await asyncio.sleep(0)

    await bench.engine.machines[sandbox.machine.id].end(why)

    assert why is await waiting
    await bench.engine.destroy(sandbox.machine)
    assert why is await sandbox.machine.wait_end()
    assert not bench.engine.machines


async def test_files_beyond_the_memory_limit_are_refused(bench: Bench, sandbox: Sandbox) -> None:
    ran = await sandbox.sh("head -c 70000000 /dev/zero > big")

    assert "No space left on device" in ran.stderr
    assert "" == await sandbox.out("rm big; cat big 2>/dev/null")
    usage = await sandbox.machine.usage()
    assert 0 < usage.memory_bytes < bench.spec.resources.memory_mib << 20


@pytest.mark.parametrize("is_paused", [False, True])
async def test_destroying_a_busy_machine_is_quick_and_leaves_no_task(
    bench: Bench, is_paused: bool
) -> None:
    before = asyncio.all_tasks()
    machine = await bench.engine.boot(bench.spec)
    busy = bench.open(machine)
    await busy.link.hello()
    calls = [
        asyncio.ensure_future(busy.sh("yes | cat > /dev/null", timeout_s=60)),
        asyncio.ensure_future(busy.cell("while True: pass", timeout_s=60)),
        asyncio.ensure_future(busy.cell("1", timeout_s=60)),
    ]
    await asyncio.sleep(0.2)
    if is_paused:
        await bench.engine.pause(machine)

    began_at = time.monotonic()
    await bench.engine.destroy(machine)
    took_s = time.monotonic() - began_at
    await asyncio.gather(*calls, return_exceptions=True)
    await busy.link.close()

    assert took_s < 1
    assert before == asyncio.all_tasks()


async def test_an_engine_that_is_closed_does_nothing(bench: Bench, sandbox: Sandbox) -> None:
    snapshot = await bench.checkpoint(sandbox)
    await bench.engine.close()

    for call in (bench.boot, lambda: bench.restore(Snapshot(snapshot.directory, bench.spec))):
        with pytest.raises(EngineError):
            await call()
