"""The gVisor engine beyond the contract: its own limits, failures and leftovers. Real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.agent.command import ExecRequest
from mitos.engine.base import (
    EngineError,
    EngineFault,
    HostProcess,
    Machine,
    MachineEnd,
    MachineSpec,
)
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.engine.gvisor.control import SocketControl
from mitos.engine.gvisor.machine import GvisorMachine
from mitos.host import cgroup, process
from mitos.host.cgroup import Memory
from mitos.wire.errors import ApiError
from tests.contract.guest import connected
from tests.engine.gvisor.conftest import Lab
from tests.engine.gvisor.place import Leftovers
from tests.host.eventually import descriptors, settled_descriptors
from tests.machine import running_release, runsc

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

_PROMPT_S = 10.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MiB, too small for a snapshot."""
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def memory_disk() -> Iterator[Path]:
    """A folder on tmpfs, where nodes keep the snapshots of live forks."""
    with tempfile.TemporaryDirectory(prefix="mitos-test-", dir="/dev/shm") as folder:
        yield Path(folder)


async def test_sixteen_machines_are_restored_at_the_same_time(lab: Lab) -> None:
    parent = await lab.boot()
    await parent.write("/workspace/a", b"1")
    blanks = await asyncio.gather(*(lab.engine.prepare(lab.spec) for _ in range(16)))
    snapshot = await parent.checkpoint(lab.engine, lab.folder)

    machines = await asyncio.gather(*(lab.engine.restore(blank, snapshot) for blank in blanks))

    for machine in machines:
        async with connected(machine, restored=True) as child:
            assert await child.read("/workspace/a") == b"1"


async def test_a_chain_of_forks_keeps_a_flat_latency(lab: Lab, memory_disk: Path) -> None:
    machine, took_s = await lab.boot(), []
    for generation in range(20):
        blank = await lab.engine.prepare(lab.spec)
        started_at = time.monotonic()
        snapshot = await machine.checkpoint(lab.engine, memory_disk / str(generation))
        child = await lab.engine.restore(blank, snapshot)
        client = await lab.exits.enter_async_context(connected(child, restored=True))
        took_s.append(time.monotonic() - started_at)
        shutil.rmtree(snapshot.directory)
        await machine.link.close()
        await lab.engine.destroy(machine.machine)
        machine = client

    assert statistics.median(took_s[-5:]) < 2 * statistics.median(took_s[:5])
    await machine.link.close()
    await lab.engine.destroy(machine.machine)


async def test_the_agents_mount_is_there_after_a_restore(lab: Lab) -> None:
    child = await lab.restore(await lab.boot(), lab.folder)

    assert await child.exists("/opt/mitos/agent")


async def test_siblings_draw_different_random_bytes(lab: Lab) -> None:
    parent = await lab.boot()
    first = await lab.restore(parent, lab.folder / "1")
    second = await lab.restore(parent, lab.folder / "2")

    drawn = {await machine.random_bytes() for machine in (parent, first, second)}

    assert len(drawn) == 3


async def test_a_machine_past_its_memory_limit_ends_with_that_reason(lab: Lab) -> None:
    machine = await lab.boot()
    writing = asyncio.ensure_future(machine.write("/workspace/big", bytes(300 << 20)))

    end = await asyncio.wait_for(machine.machine.wait_end(), 30)

    assert end is MachineEnd.OUT_OF_MEMORY
    await asyncio.gather(writing, return_exceptions=True)


async def test_the_end_of_a_machine_that_the_host_refused_a_process_is_put_down_to_that(
    lab: Lab,
) -> None:
    """It mostly lives on; what ends it is a thread that its kernel itself does not get."""
    machine = await lab.boot()
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    for folder in hierarchy.folders(f"{lab.engine.control_group}/{machine.machine.id}"):
        if (limit := folder / "pids.max").exists():
            limit.write_text("1")
    request = ExecRequest(["/opt/mitos/agent"], cwd="/", timeout_s=_PROMPT_S)

    with contextlib.suppress(ApiError):
        async with machine.agent.exec(request) as command:
            async for _ in command:
                pass
    with contextlib.suppress(AssertionError):  # Debian's may have ended already
        os.kill(_pid_of("runsc-sandbox", lab), signal.SIGKILL)
    end = await asyncio.wait_for(machine.machine.wait_end(), _PROMPT_S)

    assert end is MachineEnd.PROCESS_LIMIT


async def test_a_snapshot_in_memory_does_not_count_as_the_machines(
    lab: Lab, memory_disk: Path
) -> None:
    """Else a machine that uses over half its limit would be killed by its own checkpoint."""
    machine = await lab.boot()
    await machine.write("/workspace/big", os.urandom(70 << 20))
    before = (await machine.machine.usage()).memory_bytes

    for number in range(2):
        await machine.checkpoint(lab.engine, memory_disk / str(number))

    after = (await machine.machine.usage()).memory_bytes
    assert after - before < 20 << 20
    assert len(await machine.read("/workspace/big")) == 70 << 20


async def test_a_checkpoint_into_a_full_disk_says_so_and_the_machine_goes_on(
    lab: Lab, small_disk: Path
) -> None:
    machine = await lab.boot()
    await machine.write("/workspace/big", os.urandom(8 << 20))

    with pytest.raises(EngineError) as caught:
        await machine.checkpoint(lab.engine, small_disk / "snapshot")

    assert caught.value.fault is EngineFault.NO_SPACE
    assert list(small_disk.iterdir()) == []
    assert len(await machine.read("/workspace/big")) == 8 << 20
    child = await lab.restore(machine, lab.folder)
    assert await child.exists("/workspace/big")


async def test_a_disk_that_fills_up_during_a_checkpoint_leaves_the_machine_running(
    lab: Lab, small_disk: Path
) -> None:
    """What is reserved beforehand is computed, and may be too little."""
    machine = await lab.boot()
    content = os.urandom(8 << 20)
    await machine.write("/workspace/big", content)
    assert isinstance(machine.machine, GvisorMachine)
    target = machine.machine.sandbox.target
    control = SocketControl(running_release().traits)
    nothing = Memory(shared_bytes=0, private_bytes=0)

    async with machine.link.frozen(_PROMPT_S):
        with pytest.raises(EngineError) as caught:
            await control.checkpoint(target, small_disk, nothing)

    assert caught.value.fault is EngineFault.NO_SPACE
    assert await machine.read("/workspace/big") == content
    child = await lab.restore(machine, lab.folder)
    assert await child.read("/workspace/big") == content


@pytest.mark.parametrize("name", ["checkpoint.img", "pages_meta.img", "pages.img"])
async def test_a_truncated_snapshot_fails_the_restore_and_leaves_nothing(
    lab: Lab, name: str
) -> None:
    parent = await lab.boot()
    snapshot = await parent.checkpoint(lab.engine, lab.folder)
    await parent.link.close()
    await lab.engine.destroy(parent.machine)
    os.truncate(snapshot.directory / name, 100)
    blank = await lab.engine.prepare(lab.spec)

    with pytest.raises(EngineError, match="damaged"):
        await lab.engine.restore(blank, snapshot)

    assert lab.leftovers.sandboxes() == []


@pytest.mark.parametrize("name", ["checkpoint.img", "pages_meta.img"])
async def test_a_garbled_snapshot_fails_the_restore_and_leaves_nothing(lab: Lab, name: str) -> None:
    parent = await lab.boot()
    snapshot = await parent.checkpoint(lab.engine, lab.folder)
    await parent.link.close()
    await lab.engine.destroy(parent.machine)
    with (snapshot.directory / name).open("r+b") as file:
        file.seek((snapshot.directory / name).stat().st_size // 2)
        file.write(b"\xff" * 64)
    blank = await lab.engine.prepare(lab.spec)

    with pytest.raises(EngineError, match="restore"):
        await lab.engine.restore(blank, snapshot)

    assert lab.leftovers.sandboxes() == []


async def test_a_machine_killed_from_outside_is_lost(lab: Lab) -> None:
    machine = await lab.boot()
    os.kill(_pid_of("runsc-sandbox", lab), signal.SIGKILL)

    end = await asyncio.wait_for(machine.machine.wait_end(), _PROMPT_S)

    assert end is MachineEnd.LOST


async def test_a_machine_without_its_gofer_is_ended(lab: Lab) -> None:
    """It would hang at the next file it opens."""
    machine = await lab.boot()
    os.kill(_pid_of("runsc-gofer", lab), signal.SIGKILL)

    end = await asyncio.wait_for(machine.machine.wait_end(), _PROMPT_S)

    assert end is MachineEnd.FILES_LOST


@pytest.mark.parametrize(
    ("name", "expected"),
    [("runsc-sandbox", HostProcess.KERNEL), ("runsc-gofer", HostProcess.FILES)],
)
async def test_a_stopped_process_is_named(lab: Lab, name: str, expected: HostProcess) -> None:
    machine = (await lab.boot()).machine
    pid = _pid_of(name, lab)
    os.kill(pid, signal.SIGSTOP)
    await _until(machine, expected)
    os.kill(pid, signal.SIGCONT)
    await _until(machine, None)

    os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(lab.engine.destroy(machine), _PROMPT_S)


async def _until(machine: Machine, expected: HostProcess | None) -> None:
    async with asyncio.timeout(_PROMPT_S):
        while await machine.stopped() is not expected:
            await asyncio.sleep(0.01)


async def test_a_blank_that_ended_in_the_pool_is_refused(lab: Lab) -> None:
    parent = await lab.boot()
    snapshot = await parent.checkpoint(lab.engine, lab.folder)
    await parent.link.close()
    await lab.engine.destroy(parent.machine)
    blank = await lab.engine.prepare(lab.spec)
    os.kill(_pid_of("runsc-sandbox", lab), signal.SIGKILL)

    with pytest.raises(EngineError):
        await lab.engine.restore(blank, snapshot)

    assert lab.leftovers.sandboxes() == []


async def test_a_sandbox_that_cannot_be_made_leaves_nothing(lab: Lab) -> None:
    missing = dataclasses.replace(lab.spec.rootfs, path=lab.spec.rootfs.path / "missing")
    broken = dataclasses.replace(lab.spec, rootfs=missing)
    before = await settled_descriptors()

    with pytest.raises(EngineError, match="missing is not a folder"):
        await lab.engine.prepare(broken)

    assert lab.leftovers.sandboxes() == []
    assert descriptors() - before == set()


async def test_an_agent_that_is_missing_fails_the_boot_and_leaves_nothing(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    broken = dataclasses.replace(lab.spec, guest=tmp_path / "empty")

    with pytest.raises(EngineError, match="agent"):
        await lab.engine.boot(broken)

    assert lab.leftovers.sandboxes() == []


async def test_making_a_sandbox_that_takes_too_long_leaves_nothing(
    state: Path, spec: MachineSpec, tmp_path: Path
) -> None:
    """The sandbox is up, but the command that made it does not end."""
    marker = tmp_path / "slow"
    slow = _script(
        tmp_path / "runsc", f'[ -e {marker} ] || exec {runsc()} "$@"; {runsc()} "$@"; sleep 60'
    )
    engine = GvisorEngine(GvisorSettings(runsc=slow, state=state, create_timeout_s=2))
    await engine.start()
    marker.touch()
    try:
        with pytest.raises(EngineError) as caught:
            await engine.prepare(spec)
    finally:
        await engine.close()

    assert caught.value.fault is EngineFault.TIMED_OUT
    assert Leftovers(state, engine.control_group).sandboxes() == []


async def test_no_descriptor_is_left_after_a_machine(lab: Lab) -> None:
    machine = await lab.boot()
    await machine.link.close()
    await lab.engine.destroy(machine.machine)
    before = await settled_descriptors()

    for _ in range(3):
        machine = await lab.boot()
        await machine.link.close()
        await lab.engine.destroy(machine.machine)

    assert descriptors() - before == set()


async def test_a_sweep_removes_what_a_crashed_engine_left(state: Path, spec: MachineSpec) -> None:
    crashed = GvisorEngine(GvisorSettings(runsc=runsc(), state=state))
    await crashed.start()
    machine = await crashed.boot(spec)
    await crashed.prepare(spec)
    leftovers = Leftovers(state, crashed.control_group)
    assert leftovers.sandboxes() != []

    successor = GvisorEngine(GvisorSettings(runsc=runsc(), state=state))
    left = leftovers.sandboxes()
    await successor.start()
    assert leftovers.sandboxes() == left

    await successor.sweep()

    assert leftovers.sandboxes() == []
    end = await asyncio.wait_for(machine.wait_end(), _PROMPT_S)
    assert end in (MachineEnd.LOST, MachineEnd.FILES_LOST)  # both its processes were killed
    await successor.close()
    await crashed.close()


async def test_close_also_ends_what_is_just_being_made(state: Path, spec: MachineSpec) -> None:
    engine = GvisorEngine(GvisorSettings(runsc=runsc(), state=state))
    await engine.start()
    making = [asyncio.ensure_future(engine.prepare(spec)) for _ in range(3)]
    await asyncio.sleep(0.03)

    await engine.close()

    assert Leftovers(state, engine.control_group).sandboxes() == []
    await asyncio.gather(*making, return_exceptions=True)
    assert Leftovers(state, engine.control_group).sandboxes() == []


async def test_a_state_folder_with_a_long_path_works(spec: MachineSpec, tmp_path: Path) -> None:
    """The address of a control socket holds 107 bytes; a path may be longer."""
    state = tmp_path / ("long" * 20) / ("path" * 20)
    engine = GvisorEngine(GvisorSettings(runsc=runsc(), state=state))
    await engine.start()
    sockets_before = set(Path("/run").glob("runsc-*")) | set(Path("/tmp").glob("runsc-*"))
    try:
        async with connected(await engine.boot(spec)) as machine:
            await machine.write("/workspace/a", b"1")
    finally:
        await engine.close()

    assert Leftovers(state, engine.control_group).sandboxes() == []
    assert set(Path("/run").glob("runsc-*")) | set(Path("/tmp").glob("runsc-*")) <= sockets_before


async def test_engines_with_other_folders_are_left_alone(
    lab: Lab, spec: MachineSpec, tmp_path: Path
) -> None:
    machine = await lab.boot()

    other = GvisorEngine(GvisorSettings(runsc=runsc(), state=tmp_path / "other"))
    await other.start()
    await other.close()

    await machine.write("/workspace/a", b"1")


async def test_a_missing_runsc_is_unavailable_and_names_the_installer(tmp_path: Path) -> None:
    engine = GvisorEngine(GvisorSettings(runsc=tmp_path / "runsc", state=tmp_path / "state"))

    with pytest.raises(EngineError, match="cannot start") as caught:
        await engine.start()

    assert caught.value.fault is EngineFault.UNAVAILABLE
    assert "pip install 'mitos-run[server]'" in caught.value.remediation
    assert not (tmp_path / "state").exists()


async def test_an_old_runsc_is_unavailable_and_names_the_installer(tmp_path: Path) -> None:
    old = _script(tmp_path / "old", "echo runsc version 0.0~20221219.0")
    engine = GvisorEngine(GvisorSettings(runsc=old, state=tmp_path / "state"))

    with pytest.raises(EngineError, match=r"20221219\.0 is too old; 20240729 or later") as caught:
        await engine.start()

    assert caught.value.fault is EngineFault.UNAVAILABLE
    assert "pip install 'mitos-run[server]'" in caught.value.remediation
    assert not (await engine.probe()).usable


async def test_an_untested_release_gets_its_orders_by_command_line(
    state: Path, spec: MachineSpec, tmp_path: Path
) -> None:
    newer = _script(
        tmp_path / "newer",
        f'[ "$1" = --version ] && exec echo runsc version release-20991231.0; exec {runsc()} "$@"',
    )
    engine = GvisorEngine(GvisorSettings(runsc=newer, state=state))
    await engine.start()
    try:
        assert not engine.is_tested
        [told] = [check for check in (await engine.probe()).checks if check.name == "release"]
        assert not told.passed
        assert "not tested" in told.detail
        parent = await engine.boot(spec)
        async with connected(parent) as client:
            await client.write("/workspace/a", b"1")
            snapshot = await client.checkpoint(engine, tmp_path / "snapshot")
            child = await engine.restore(await engine.prepare(spec), snapshot)
            async with connected(child, restored=True) as restored:
                assert await restored.read("/workspace/a") == b"1"
                await engine.pause(child)
                await engine.resume(child)
                assert await restored.read("/workspace/a") == b"1"
            assert await client.read("/workspace/a") == b"1"
    finally:
        await engine.close()

    assert Leftovers(state, engine.control_group).sandboxes() == []


async def test_a_root_folder_may_be_reached_over_a_symbolic_link(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(lab.spec.rootfs.path)
    rootfs = dataclasses.replace(lab.spec.rootfs, path=tmp_path / "link")

    client = await lab.boot(dataclasses.replace(lab.spec, rootfs=rootfs))

    assert await client.exists("/opt/mitos/agent")


def _pid_of(name: str, lab: Lab) -> int:
    root = f"--root={lab.state / 'runsc'}"
    for pid in process.find(root):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name.encode()):
            return pid
    raise AssertionError(f"no {name} runs")


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def cpu_ticks(state: Path) -> int:
    """CPU time of all sandboxes of an engine, in clock ticks."""
    total = 0
    for pid in process.find(f"--root={state / 'runsc'}"):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


async def test_blanks_and_paused_machines_cost_no_cpu(lab: Lab, state: Path) -> None:
    await lab.engine.prepare(lab.spec)
    client = await lab.boot()
    await lab.engine.pause(client.machine)
    before = cpu_ticks(state)
    await asyncio.sleep(1)

    assert before > 0
    assert cpu_ticks(state) <= before + 1
    await lab.engine.resume(client.machine)
