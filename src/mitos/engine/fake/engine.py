"""The engine's methods over guests in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from mitos.engine.base import (
    Blank,
    EngineError,
    EngineFault,
    Machine,
    MachineEnd,
    MachineSpec,
    Probe,
    ProbeCheck,
    Snapshot,
)
from mitos.engine.fake import persist
from mitos.engine.fake.machine import FakeBlank, FakeMachine, cold_guest
from mitos.engine.fake.persist import SavedGuest

__all__ = ["FakeEngine"]


class FakeEngine:
    """Runs guests in this process.

    Attributes:
        machines: those that were not destroyed yet, by id.
        fail_next: for tests: the name of a method whose next call fails.
        mute_next_identify: for tests: the next restored guest keeps silent in its handshake.
    """

    name = "fake"

    def __init__(self) -> None:
        self.machines: dict[str, FakeMachine] = {}
        self.fail_next: str | None = None
        self.mute_next_identify = False
        self._numbers = itertools.count(1)
        self._is_open = False

    @property
    def snapshot_format(self) -> str:
        """As `persist` says."""
        return persist.FORMAT

    async def probe(self) -> Probe:
        """Always usable."""
        return Probe(self.name, (ProbeCheck("memory", passed=True, detail="no isolation"),))

    async def start(self) -> None:
        """Opens the engine; a predecessor leaves nothing behind."""
        self._is_open = True

    async def close(self) -> None:
        """Ends every machine. Idempotent."""
        self._is_open = False
        await asyncio.gather(*(self.destroy(machine) for machine in list(self.machines.values())))

    async def boot(self, spec: MachineSpec) -> Machine:
        """Starts an empty guest."""
        self._attempt("boot")
        return self._add(spec, cold_guest(spec), is_restored=False)

    async def prepare(self, spec: MachineSpec) -> Blank:
        """Makes a blank."""
        self._attempt("prepare")
        return FakeBlank(self._new_id(), spec)

    async def checkpoint(self, machine: Machine, directory: Path) -> Snapshot:
        """Writes the guest's state; only copying it stops the guest."""
        found = self._running(machine)
        self._attempt("checkpoint")
        async with _cleaned_up(directory):
            try:
                async with found.guest.saved() as saved:
                    body = persist.dump(saved)
                await _store(directory, body)
            except TimeoutError as exc:
                message = f"checkpoint of {machine.id} failed: a cell cannot be stopped"
                raise EngineError(message, fault=EngineFault.TIMED_OUT) from exc
            except (OSError, pickle.PicklingError) as exc:
                raise EngineError(f"checkpoint of {machine.id} failed: {exc}") from exc
            found.require_running()
        return Snapshot(directory, machine.spec)

    async def restore(self, blank: Blank, snapshot: Snapshot) -> Machine:
        """Starts a guest from a written state."""
        if not isinstance(blank, FakeBlank) or blank.is_used:
            raise EngineError(f"blank {blank.id} is used up")
        blank.is_used = True
        self._attempt("restore")
        is_muted, self.mute_next_identify = self.mute_next_identify, False
        if blank.spec != snapshot.spec:
            raise EngineError(f"blank {blank.id} has another spec than the snapshot")
        try:
            saved = await asyncio.to_thread(persist.read, snapshot.directory)
        except (OSError, persist.DamagedSnapshotError) as exc:
            raise EngineError(f"restore into {blank.id} failed: {exc}") from exc
        self._require_open()
        machine = self._add(blank.spec, saved, is_restored=True)
        machine.guest.mutes_identify = is_muted
        return machine

    async def pause(self, machine: Machine) -> None:
        """Stops the guest."""
        try:
            await self._running(machine).guest.pause()
        except TimeoutError as exc:
            message = f"pause of {machine.id} failed: a cell cannot be stopped"
            raise EngineError(message, fault=EngineFault.TIMED_OUT) from exc

    async def resume(self, machine: Machine) -> None:
        """Lets it go on."""
        await self._running(machine).guest.resume()

    async def destroy(self, item: Machine | Blank) -> None:
        """Ends a machine or blank. Idempotent."""
        if isinstance(item, FakeMachine):
            await item.end(MachineEnd.DESTROYED)
            self.machines.pop(item.id, None)
        elif isinstance(item, FakeBlank):
            item.is_used = True

    def _add(self, spec: MachineSpec, saved: SavedGuest, *, is_restored: bool) -> FakeMachine:
        machine = FakeMachine(self._new_id(), spec, saved, is_restored=is_restored)
        self.machines[machine.id] = machine
        return machine

    def _new_id(self) -> str:
        return f"fake-{next(self._numbers)}"

    def _attempt(self, method: str) -> None:
        self._require_open()
        if self.fail_next == method:
            self.fail_next = None
            raise EngineError(f"{method} failed because the test wanted it to")

    def _require_open(self) -> None:
        if not self._is_open:
            raise EngineError("the fake engine is not started", fault=EngineFault.UNAVAILABLE)

    def _running(self, machine: Machine) -> FakeMachine:
        if not isinstance(machine, FakeMachine):
            raise EngineError(f"{machine.id} is not a machine of this engine")
        machine.require_running()
        return machine


@contextlib.asynccontextmanager
async def _cleaned_up(directory: Path) -> AsyncIterator[None]:
    """Removes the folder when the block fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


async def _store(directory: Path, body: bytes) -> None:
    """Writes the state; also when cancelled, it returns only once nothing writes any more."""

    def write() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        persist.write(directory, body)

    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})
        raise
