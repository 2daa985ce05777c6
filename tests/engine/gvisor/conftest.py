"""A started gVisor engine for tests that go beyond the engine contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitos.engine.base import MachineSpec, Resources
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import guest
from tests.contract.guest import Client, connected
from tests.engine.gvisor.place import Leftovers
from tests.machine import runsc, why_no_real_sandboxes


@dataclass(frozen=True)
class Lab:
    """An engine, a spec, and room for snapshots."""

    engine: GvisorEngine
    state: Path
    spec: MachineSpec
    folder: Path
    leftovers: Leftovers
    exits: AsyncExitStack

    async def boot(self, spec: MachineSpec | None = None) -> Client:
        """A cold machine whose agent has answered."""
        machine = await self.engine.boot(spec or self.spec)
        self.exits.push_async_callback(self.engine.destroy, machine)
        return await self.exits.enter_async_context(connected(machine))

    async def restore(self, snapshot_of: Client, folder: Path) -> Client:
        """A machine restored from a new snapshot of another."""
        blank = await self.engine.prepare(snapshot_of.machine.spec)
        snapshot = await snapshot_of.checkpoint(self.engine, folder)
        machine = await self.engine.restore(blank, snapshot)
        self.exits.push_async_callback(self.engine.destroy, machine)
        return await self.exits.enter_async_context(connected(machine, restored=True))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The engine's state folder."""
    return tmp_path / "state"


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    """A machine of nothing but the agent."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    (tmp_path / "rootfs").mkdir()
    resources = Resources(vcpu_count=1, memory_mib=128, process_limit=256)
    rootfs = RootFilesystem(RootKind.FOLDER, tmp_path / "rootfs")
    return MachineSpec(rootfs, guest.materialize(tmp_path / "guest"), resources)


@pytest.fixture
async def lab(state: Path, spec: MachineSpec, tmp_path: Path) -> AsyncIterator[Lab]:
    """A started engine; closed and checked for leftovers afterwards."""
    engine = GvisorEngine(GvisorSettings(runsc=runsc(), state=state))
    await engine.start()
    leftovers = Leftovers(state, engine.control_group)
    try:
        async with AsyncExitStack() as exits:
            yield Lab(engine, state, spec, tmp_path / "snapshots", leftovers, exits)
    finally:
        await engine.close()
    assert leftovers.sandboxes() == []
