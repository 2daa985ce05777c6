"""Machines that are nearly full, and their limits on the host afterwards. Real sandboxes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor import image
from mitos.host import cgroup
from tests.contract.guest import Client
from tests.engine.gvisor.conftest import Lab

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

MIB = 1 << 20
LIMIT = 128 * MIB
"""Of a lab's machines."""

DEADLINE_S = 20.0


def limit_of(lab: Lab, client: Client) -> int:
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    names = ("memory.limit_in_bytes", "memory.max")
    (found,) = {
        folder / name
        for folder in hierarchy.folders(f"{lab.engine.control_group}/{client.machine.id}")
        for name in names
        if (folder / name).exists()
    }
    return int(found.read_text())


async def test_a_full_machine_and_its_copy_have_their_limit_again(lab: Lab) -> None:
    machine = await lab.boot()
    content = os.urandom(MIB)
    for number in range(92):
        await machine.write(f"/workspace/{number}", content)
    assert (await machine.machine.usage()).memory_bytes > 0.75 * LIMIT

    child = await lab.restore(machine, lab.folder)

    assert await child.read("/workspace/91") == content
    assert await machine.read("/workspace/91") == content
    async with asyncio.timeout(DEADLINE_S):
        while {limit_of(lab, machine), limit_of(lab, child)} != {LIMIT}:
            await asyncio.sleep(0.05)


async def test_a_copy_that_is_larger_than_the_limit_is_refused(lab: Lab) -> None:
    machine = await lab.boot()
    snapshot = await machine.checkpoint(lab.engine, lab.folder)
    os.truncate(snapshot.directory / "pages.img", LIMIT + MIB)
    image.seal(snapshot.directory, snapshot_format=lab.engine.snapshot_format)
    blank = await lab.engine.prepare(lab.spec)

    with pytest.raises(EngineError, match="does not fit into its 128 MiB") as caught:
        await lab.engine.restore(blank, snapshot)

    assert caught.value.fault is EngineFault.NO_SPACE
    assert "mem_size_mib" in caught.value.remediation
    await machine.write("/workspace/a", b"1")
