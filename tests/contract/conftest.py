"""Every engine, each with a machine spec whose agent speaks the guest link."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mitos.engine import select
from mitos.engine.base import Engine, Machine, MachineEnd, MachineSpec, Resources
from mitos.engine.facts import Isolation
from mitos.engine.fake import FakeEngine
from mitos.engine.gvisor import GvisorEngine
from mitos.engine.kind import EngineKind, EngineSettings
from mitos.images import guest
from tests.contract.guest import Client, connected, token_of
from tests.engine.gvisor.place import Leftovers
from tests.engine.roots import bare_root
from tests.machine import borrow_cache, why_no_real_sandboxes


@dataclass(frozen=True)
class Subject:
    """An engine under test."""

    engine: Engine
    opened_again: Callable[[], Engine]
    spec: MachineSpec
    snapshots: Path
    leftovers: Leftovers | None
    exits: AsyncExitStack
    numbers: Iterator[int]

    async def boot(self) -> Client:
        """A cold machine whose agent has answered."""
        return await self._client(await self.engine.boot(self.spec))

    async def fork(self, source: Client) -> Client:
        """A machine restored from a snapshot of the source."""
        snapshot = await source.checkpoint(self.engine, self.folder())
        blank = await self.engine.prepare(self.spec)
        return await self.connect(await self.engine.restore(blank, snapshot))

    async def connect(self, machine: Machine) -> Client:
        """A client of a machine that was just restored."""
        return await self._client(machine, restored=True)

    async def successor(self, *left: Client) -> Subject:
        """The same with another engine, after this one has let go of some machines."""
        for client in left:
            await client.link.close()
            await self.engine.leave(client.machine)
        later = self.opened_again()
        await later.start()
        self.exits.push_async_callback(later.close)
        return replace(self, engine=later)

    async def adopt(self, left: Client) -> Machine:
        """A machine that an earlier engine left, which must be there."""
        machine = await self.engine.adopt(left.machine.id, left.machine.spec)
        assert not isinstance(machine, MachineEnd), machine
        return machine

    async def take_over(self, left: Client, *, resumed: bool = False) -> Client:
        """A client of a machine that an earlier engine left."""
        machine = await self.adopt(left)
        if resumed:
            await self.engine.resume(machine)
        return await self._client(machine, token=token_of(left.machine.id))

    def folder(self) -> Path:
        """A folder for a snapshot, not made yet."""
        return self.snapshots / str(next(self.numbers))

    async def end(self, client: Client) -> None:
        """Closes the client's link and destroys its machine."""
        await client.link.close()
        await self.engine.destroy(client.machine)

    async def _client(
        self, machine: Machine, *, restored: bool = False, token: str | None = None
    ) -> Client:
        client = connected(machine, restored=restored, token=token)
        return await self.exits.enter_async_context(client)


def _needs_machine(kind: EngineKind) -> bool:
    return kind.facts.isolation is not Isolation.NONE


ENGINES = [
    pytest.param(
        (kind, root),
        id=f"{kind.name}-{root.value}",
        marks=[pytest.mark.real] if _needs_machine(kind) else [],
    )
    for kind in map(select.find, select.names())
    for root in kind.facts.root_kinds
]


@pytest.fixture(params=ENGINES)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """Each engine on each kind of root, started; closed and checked for leftovers afterwards."""
    kind: EngineKind
    kind, root = request.param
    home = tmp_path / "home"
    home.mkdir()
    if _needs_machine(kind):
        if reason := why_no_real_sandboxes():
            pytest.skip(reason)
        borrow_cache(home)
    engine = kind.open(EngineSettings(home))

    def opened_again() -> Engine:
        if isinstance(engine, FakeEngine):
            return FakeEngine(engine.host)
        return kind.open(EngineSettings(home))

    await engine.start()
    leftovers: Leftovers | None = None
    if isinstance(engine, GvisorEngine):
        leftovers = Leftovers(home / "run", engine.control_group)
    files = guest.materialize(tmp_path / "guest")
    spec = MachineSpec(
        await bare_root(root, tmp_path, files),
        files,
        Resources(vcpu_count=1, memory_mib=256, process_limit=256),
    )
    try:
        async with AsyncExitStack() as exits:
            snapshots, numbers = tmp_path / "snapshots", itertools.count()
            yield Subject(engine, opened_again, spec, snapshots, leftovers, exits, numbers)
    finally:
        await engine.close()
        left = leftovers.sandboxes() if leftovers is not None else []
        if left:
            await _remove_all(opened_again())
    assert left == []


async def _remove_all(engine: Engine) -> None:
    await engine.start()
    await engine.sweep()
    await engine.close()
