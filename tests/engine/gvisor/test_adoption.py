"""gVisor sandboxes that an earlier process made: what proves that they are ours, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.engine.base import EngineError, EngineFault, HostProcess, MachineEnd
from mitos.engine.gvisor import journal
from mitos.engine.gvisor.journal import Activity
from mitos.engine.gvisor.machine import GvisorMachine
from mitos.host import cgroup, pidfd, process
from mitos.host.cgroup import Hierarchy
from mitos.host.pipe import PipeStream
from mitos.host.rootfs import RootKind
from mitos.wire.errors import ApiError
from tests.contract.guest import Client, connected, token_of
from tests.engine.gvisor.conftest import Lab
from tests.engine.roots import bare_root
from tests.host.eventually import descriptors, settled_descriptors, until
from tests.machine import runsc

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

_PROMPT_S = 10.0


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else."""
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        assert child.poll() is None
        child.kill()


async def test_a_kernel_killed_while_nobody_followed_it_is_lost(lab: Lab) -> None:
    client = await lab.boot()
    await lab.leave(client)
    await _kill(lab, client)

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.LOST
    await later.engine.sweep()
    assert lab.leftovers.sandboxes() == []


async def test_a_kernel_at_its_memory_limit_while_nobody_followed_it_is_put_down_to_that(
    lab: Lab,
) -> None:
    client = await lab.boot()
    await lab.leave(client)
    async with _unnoticed(lab, client) as agent:
        with contextlib.suppress(ApiError):
            await agent.write_file("/workspace/big", _pieces(300))
    await until(lambda: _processes(lab, client) == [], timeout_s=_PROMPT_S)

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.OUT_OF_MEMORY
    await later.engine.sweep()


async def test_a_sandbox_of_another_boot_of_the_host_has_ended_with_it(lab: Lab) -> None:
    client = await lab.boot()
    await lab.leave(client)
    _edit(lab, client, boot="11111111-2222-3333-4444-555555555555")

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.HOST_RESTARTED
    await later.engine.sweep()
    assert lab.leftovers.sandboxes() == []


@pytest.mark.parametrize("is_same_start", [False, True])
async def test_a_process_that_got_a_kernels_id_is_never_touched(
    lab: Lab, innocent: subprocess.Popen[bytes], is_same_start: bool
) -> None:
    client = await lab.boot()
    await lab.leave(client)
    kernel = json.loads((lab.folder_of(client) / "machine.json").read_text())["kernel"]
    started = pidfd.start_ticks(innocent.pid) if is_same_start else kernel["started"]
    _edit(lab, client, kernel={"pid": innocent.pid, "started": started})

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.LOST
    await later.engine.sweep()
    assert lab.leftovers.sandboxes() == []
    assert innocent.poll() is None


async def test_a_kernel_that_began_at_another_time_is_not_the_one(lab: Lab) -> None:
    client = await lab.boot()
    await lab.leave(client)
    kernel = json.loads((lab.folder_of(client) / "machine.json").read_text())["kernel"]
    _edit(lab, client, kernel={**kernel, "started": kernel["started"] + 1})

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.LOST
    await later.engine.sweep()


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_pause_that_was_cut_short_ends_in_a_copy(lab: Lab, is_paused: bool) -> None:
    client = await lab.boot()
    await client.write("/workspace/a", b"1")
    if is_paused:
        await lab.engine.pause(client.machine)
    await lab.leave(client)
    journal.write_activity(lab.folder_of(client), Activity.CHANGING)

    later = await lab.successor()
    copy = await later.adopt(client)
    await later.engine.sweep()

    assert copy.id != client.machine.id
    assert not copy.is_paused
    async with connected(copy, token=token_of(client.machine.id)) as second:
        assert await second.read("/workspace/a") == b"1"
        await later.engine.pause(copy)
        await later.engine.resume(copy)
        assert await second.read("/workspace/a") == b"1"
    assert _processes(lab, client) == []
    assert not lab.folder_of(client).exists()
    assert not (lab.state / "copies" / client.machine.id).exists()


async def test_a_copy_is_taken_over_whatever_was_on_its_way(lab: Lab) -> None:
    client = await lab.boot()
    content = os.urandom(8 << 20)
    await client.write("/workspace/big", content)
    calls = [asyncio.ensure_future(client.read("/workspace/big")) for _ in range(3)]
    calls += [asyncio.ensure_future(_written(client, f"/workspace/{n}")) for n in range(3)]
    await asyncio.sleep(0.02)
    await lab.leave(client)
    await asyncio.gather(*calls, return_exceptions=True)
    journal.write_activity(lab.folder_of(client), Activity.CHANGING)

    later = await lab.successor()
    copy = await later.adopt(client)
    await later.engine.sweep()

    async with connected(copy, token=token_of(client.machine.id)) as second:
        assert await second.read("/workspace/big") == content


async def test_a_copy_that_fails_leaves_the_sandbox_as_it_was(lab: Lab) -> None:
    client = await lab.boot()
    await client.write("/workspace/a", b"1")
    await lab.leave(client)
    journal.write_activity(lab.folder_of(client), Activity.CHANGING)
    hindered = await lab.successor()
    (lab.state / "copies").write_text("a file where a folder must be made")

    with pytest.raises(EngineError):
        await hindered.engine.adopt(client.machine.id, lab.spec)

    (lab.state / "copies").unlink()
    later = await lab.successor()
    copy = await later.adopt(client)
    async with connected(copy, token=token_of(client.machine.id)) as second:
        assert await second.read("/workspace/a") == b"1"
    await later.engine.sweep()


async def test_the_snapshot_of_a_copy_that_was_cut_short_is_removed(lab: Lab) -> None:
    (lab.state / "copies" / "mt-0123456789ab").mkdir(parents=True)
    (lab.state / "copies" / "mt-0123456789ab" / "pages.img").write_bytes(b"x")

    await lab.successor()

    assert not (lab.state / "copies").exists()


async def test_a_journal_of_a_later_release_is_refused_and_says_what_to_do(lab: Lab) -> None:
    client = await lab.boot()
    await client.write("/workspace/a", b"1")
    await lab.leave(client)
    _edit(lab, client, version=2)

    with pytest.raises(EngineError, match="version 2") as caught:
        await lab.successor()

    assert caught.value.fault is EngineFault.UNAVAILABLE
    assert "Start the server that wrote it" in caught.value.remediation
    _edit(lab, client, version=1)
    second = await (await lab.successor()).take_over(client)
    assert await second.read("/workspace/a") == b"1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": "x"}'])
async def test_a_sandbox_with_a_damaged_journal_is_lost_and_swept(lab: Lab, content: bytes) -> None:
    client = await lab.boot()
    await lab.leave(client)
    (lab.folder_of(client) / "machine.json").write_bytes(content)

    later = await lab.successor()

    assert await later.engine.adopt(client.machine.id, lab.spec) is MachineEnd.LOST
    await later.engine.sweep()
    assert lab.leftovers.sandboxes() == []


async def test_a_blank_that_was_not_ready_is_swept(lab: Lab) -> None:
    """It may lack its network: an engine was killed while it made it."""
    blank = await lab.engine.prepare(lab.spec)
    journal.write_activity(lab.state / "machines" / blank.id, Activity.MAKING)

    later = await lab.successor()

    assert await later.engine.adopt_blanks(lab.spec) == []
    await later.engine.sweep()
    assert lab.leftovers.sandboxes() == []


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_memory_limit_that_an_earlier_engine_raised_is_lowered(
    lab: Lab, is_paused: bool
) -> None:
    client = await lab.boot()
    if is_paused:
        await lab.engine.pause(client.machine)
    await lab.leave(client)
    group = f"{lab.engine.control_group}/{client.machine.id}"
    limit = lab.spec.resources.memory_mib << 20
    _hierarchy().set_memory_limit(group, limit + (64 << 20))

    later = await lab.successor()
    await later.adopt(client)

    await until(lambda: _hierarchy().memory_limit(group) == limit, timeout_s=_PROMPT_S)


async def test_a_kernel_that_was_held_goes_on(lab: Lab) -> None:
    """A server that ended in the middle of a checkpoint may have left it so."""
    client = await lab.boot()
    assert isinstance(client.machine, GvisorMachine)
    client.machine.sandbox.stop_kernel()
    await lab.leave(client)

    second = await (await lab.successor()).take_over(client)

    assert await second.exists("/workspace")
    assert await second.machine.stopped() is None


async def test_a_paused_machine_whose_kernel_was_not_held_yet_is_adopted(lab: Lab) -> None:
    client = await lab.boot()
    await client.write("/workspace/a", b"1")
    await lab.engine.pause(client.machine)
    assert isinstance(client.machine, GvisorMachine)
    client.machine.sandbox.continue_kernel()
    await lab.leave(client)

    later = await lab.successor()
    machine = await later.adopt(client)

    assert machine.is_paused
    await later.engine.resume(machine)
    async with connected(machine, token=token_of(client.machine.id)) as second:
        assert await second.read("/workspace/a") == b"1"


async def test_an_adopted_machine_without_its_gofer_is_ended(lab: Lab) -> None:
    client = await lab.boot()
    await lab.leave(client)
    machine = await (await lab.successor()).adopt(client)
    await asyncio.sleep(0.5)
    (gofer,) = (pid for pid in _processes(lab, client) if "gofer" in _name(pid))

    os.kill(gofer, signal.SIGKILL)

    assert await asyncio.wait_for(machine.wait_end(), _PROMPT_S) is MachineEnd.FILES_LOST


async def test_a_stopped_process_of_an_adopted_machine_is_named(lab: Lab) -> None:
    client = await lab.boot()
    await lab.leave(client)
    machine = await (await lab.successor()).adopt(client)
    (kernel,) = (pid for pid in _processes(lab, client) if "sandbox" in _name(pid))

    os.kill(kernel, signal.SIGSTOP)

    async with asyncio.timeout(_PROMPT_S):
        while await machine.stopped() is not HostProcess.KERNEL:
            await asyncio.sleep(0.01)
    os.kill(kernel, signal.SIGCONT)


async def test_a_machine_goes_on_under_another_release_and_its_snapshots_stay_its_own(
    lab: Lab, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    newer.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo runsc version release-20991231.0\n'
        f'exec {runsc()} "$@"\n'
    )
    newer.chmod(0o755)
    client = await lab.boot()
    await client.write("/workspace/a", b"1")
    await lab.leave(client)

    later = await lab.successor(newer)
    second = await later.take_over(client)
    await later.engine.pause(second.machine)
    await later.engine.resume(second.machine)
    snapshot = await second.checkpoint(later.engine, lab.folder)

    assert second.machine.snapshot_format == lab.engine.snapshot_format
    assert later.engine.snapshot_format != lab.engine.snapshot_format
    assert await second.read("/workspace/a") == b"1"
    with pytest.raises(EngineError, match="was written by"):
        await later.engine.restore(await later.engine.prepare(lab.spec), snapshot)
    child = await lab.engine.restore(await lab.engine.prepare(lab.spec), snapshot)
    async with connected(child, restored=True) as restored:
        assert await restored.read("/workspace/a") == b"1"


async def test_the_user_of_an_adopted_machine_is_nobody_elses_until_it_ends(
    lab: Lab, tmp_path: Path
) -> None:
    root = await bare_root(RootKind.EROFS_IMAGE, tmp_path / "image", lab.spec.guest)
    spec = replace(lab.spec, rootfs=root)
    client = await lab.boot(spec)
    users = {_user(pid) for pid in _processes(lab, client)}
    await lab.leave(client)

    later = await lab.successor()
    second = await later.take_over(client)
    others = [await later.boot(spec) for _ in range(2)]
    taken = {_user(pid) for other in others for pid in _processes(lab, other)}

    assert not users & taken
    assert len(taken) == 2
    for each in (second, *others):
        await each.link.close()
        await later.engine.destroy(each.machine)
    again = [await later.boot(spec) for _ in range(3)]
    assert users <= {_user(pid) for each in again for pid in _processes(lab, each)}


async def test_no_descriptor_is_left_after_a_machine_was_left(lab: Lab) -> None:
    first = await lab.boot()
    await lab.leave(first)
    later = await lab.successor()
    before = await settled_descriptors()

    for _ in range(3):
        machine = await later.adopt(first)
        await later.engine.leave(machine)
        later = await lab.successor()

    # Each engine keeps the namespace that showed it that it may make some.
    assert {each for each in descriptors() - before if " -> user:" not in each} == set()
    await later.engine.sweep()


@contextlib.asynccontextmanager
async def _unnoticed(lab: Lab, client: Client) -> AsyncIterator[AgentClient]:
    """The agent of a machine that no engine follows."""
    folder = lab.folder_of(client)
    stream = PipeStream.open(source=folder / "out", sink=folder / "in")
    link = Link(stream, token=token_of(client.machine.id))
    link.take_over()
    try:
        await link.hello()
        yield AgentClient(link, _lost)
    finally:
        await link.close()


async def _written(client: Client, path: str) -> bytes:
    with contextlib.suppress(ConnectionError):
        await client.agent.write_file(path, _pieces(8))
    return b""


async def _lost() -> ApiError:
    return ApiError("internal", "the machine ended")


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1 << 20)


def _edit(lab: Lab, client: Client, **changed: Any) -> None:
    path = lab.folder_of(client) / "machine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _processes(lab: Lab, client: Client) -> list[int]:
    return process.find(f"--bundle={lab.folder_of(client)}")


async def _kill(lab: Lab, client: Client) -> None:
    for pid in _processes(lab, client):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: _processes(lab, client) == [], timeout_s=_PROMPT_S)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def _user(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _hierarchy() -> Hierarchy:
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    return hierarchy
