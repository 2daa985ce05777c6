"""A started gVisor engine for tests that go beyond the engine contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mitos.engine.base import MachineSpec, Resources
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.engine.gvisor.machine import GvisorMachine
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import guest
from tests.contract.guest import Client, connected, token_of
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
        return await self.exits.enter_async_context(connected(machine))

    async def restore(self, snapshot_of: Client, folder: Path) -> Client:
        """A machine restored from a new snapshot of another."""
        blank = await self.engine.prepare(snapshot_of.machine.spec)
        snapshot = await snapshot_of.checkpoint(self.engine, folder)
        machine = await self.engine.restore(blank, snapshot)
        return await self.exits.enter_async_context(connected(machine, restored=True))

    async def leave(self, *clients: Client) -> None:
        """Has the engine let go of machines."""
        for client in clients:
            await client.link.close()
            await self.engine.leave(client.machine)

    async def successor(self, program: Path | None = None) -> Lab:
        """The same with another engine, of a program of its own if one is named."""
        later = GvisorEngine(GvisorSettings(runsc=program or runsc(), state=self.state))
        await later.start()
        self.exits.push_async_callback(later.close)
        return replace(self, engine=later)

    async def adopt(self, left: Client) -> GvisorMachine:
        """A machine that an earlier engine left, which must be there."""
        machine = await self.engine.adopt(left.machine.id, left.machine.spec)
        assert isinstance(machine, GvisorMachine), machine
        return machine

    async def take_over(self, left: Client) -> Client:
        """A client of a machine that an earlier engine left."""
        client = connected(await self.adopt(left), token=token_of(left.machine.id))
        return await self.exits.enter_async_context(client)

    def folder_of(self, client: Client) -> Path:
        """Where the engine keeps a machine's files."""
        return self.state / "machines" / client.machine.id


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
