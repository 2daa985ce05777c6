"""The gVisor engine: the seam's methods over sandboxes, and who owns them.

A blank and the machine it becomes are one sandbox. The engine keeps every sandbox until its removal
has succeeded, or it is left, so `close` finds all of them. An order once given to a sandbox is seen
through even when the caller is cancelled: half a pause would leave it unknown whether the sandbox
stands still.

On crash: sandboxes keep running without us; the next engine adopts those that are wanted and sweeps
the others. Full disk: `checkpoint` fails with `NO_SPACE` before it stops the machine. Slow disk:
orders have deadlines that grow with a machine's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import secrets
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
    Snapshot,
    require_bootable,
)
from mitos.engine.gvisor import adoption, image, journal, making, orders, probe
from mitos.engine.gvisor.facts import FACTS
from mitos.engine.gvisor.machine import GvisorBlank, GvisorMachine
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.runsc import Runsc
from mitos.engine.gvisor.sandbox import Sandbox
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.gvisor.users import Users
from mitos.host.finish import finish

__all__ = ["GvisorEngine", "group_of"]

_log = logging.getLogger(__name__)


class GvisorEngine:
    """Runs machines in gVisor sandboxes."""

    name = "gvisor"
    facts = FACTS

    def __init__(self, settings: GvisorSettings) -> None:
        self._settings = settings
        self._sandboxes: dict[str, Sandbox] = {}
        self._making = 0
        self._none_in_the_making = asyncio.Event()
        self._none_in_the_making.set()
        self._place: Place | None = None
        self._left: frozenset[str] = frozenset()
        self._format = ""
        self._is_tested = False

    @property
    def snapshot_format(self) -> str:
        """Names what can read this engine's snapshots; known once started."""
        return self._format

    @property
    def is_tested(self) -> bool:
        """False for a release that is not in the table of `release`; known once started."""
        return self._is_tested

    @property
    def control_group(self) -> str:
        """The control group that holds the sandboxes' own."""
        return group_of(self._settings.state.resolve())

    async def probe(self) -> Probe:
        """Looks at this machine; starts nothing that outlives the call."""
        return (await probe.examine(self._settings)).probe

    async def start(self) -> None:
        """Makes the engine's folders. What an earlier process left stays until `sweep`.

        Raises:
            EngineError: `UNAVAILABLE` when the engine cannot run here.
        """
        findings = await probe.examine(self._settings)
        if findings.release is None or findings.hierarchy is None or not findings.probe.usable:
            raise probe.unavailable(findings.probe)
        state = self._settings.state.resolve()
        runsc = Runsc(self._settings.runsc.resolve(), state / "runsc")
        machines = state / "machines"
        for folder in (state, runsc.root, machines):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place(
            settings=self._settings,
            runsc=runsc,
            machines=machines,
            copies=self._settings.copies or state / "copies",
            hierarchy=findings.hierarchy,
            group=self.control_group,
            users=await _users(state, machines),
        )
        self._format = findings.release.snapshot_format
        self._is_tested = findings.release.is_known
        self._place = place
        self._left = adoption.left(place)
        adoption.end_commands(place)
        shutil.rmtree(place.copies, ignore_errors=True)
        control = type(place.control_of(self._format)).__name__
        _log.info("gVisor engine uses runsc %s by %s", findings.release, control)

    async def adopt(self, machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:
        """Takes over a machine that an earlier process ran, or says how it ended.

        gVisor counts pauses and tells nobody: one that was cut short in a pause comes back as a
        copy, which is not paused.

        Raises:
            EngineError: `UNAVAILABLE`, a later release made it; or it cannot be taken over now.
        """
        place = self._started()
        if machine_id not in self._left:
            return MachineEnd.LOST
        found = await making.adopt(machine_id, spec, place)
        if isinstance(found, MachineEnd):
            return found
        try:
            machine = await self._follow(found)
            if not found.is_between:
                self._sandboxes[found.id] = found
                self._left -= {found.id}
                return machine
            return await self._copy(found)
        except EngineError:
            if found.is_running:
                raise
            return making.end_of(machine_id, place)
        finally:
            if found.id not in self._sandboxes:
                await finish(found.let_go())

    async def adopt_blanks(self, spec: MachineSpec) -> list[Blank]:
        """Takes over the blanks of an equal spec that an earlier process made and did not use."""
        place = self._started()
        found: list[Blank] = []
        for sandbox_id in adoption.blanks(self._left, spec, place, snapshot_format=self._format):
            try:
                sandbox = await making.adopt(sandbox_id, spec, place)
            except EngineError as exc:
                _log.error("%s", exc)  # another one is made
                continue
            if isinstance(sandbox, Sandbox):
                self._sandboxes[sandbox_id] = sandbox
                self._left -= {sandbox_id}
                found.append(GvisorBlank(sandbox))
        return found

    async def sweep(self) -> None:
        """Removes every machine and blank that an earlier process left and nobody adopted."""
        place = self._started()
        strays, self._left = self._left, frozenset()
        await adoption.sweep(strays, place)

    async def leave(self, machine: Machine) -> None:
        """Lets go of a machine without ending it.

        Raises:
            EngineError: it is not of this engine.
        """
        sandbox = _ours(machine)
        self._sandboxes.pop(sandbox.id, None)
        await finish(sandbox.let_go())

    async def close(self) -> None:
        """Destroys every machine and blank. Idempotent."""
        place, self._place = self._place, None
        await self._none_in_the_making.wait()
        left = [self._remove(item) for item in self._sandboxes.values()]
        results = await asyncio.gather(*left, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("a sandbox could not be removed: %s", result)
        if place is not None:
            if place.users is not None:
                place.users.close()
            with contextlib.suppress(OSError):
                place.hierarchy.remove(place.group)

    async def boot(self, spec: MachineSpec) -> Machine:
        """Starts a machine cold.

        Raises:
            EngineError: it did not start; nothing of it is left.
        """
        async with self._made(spec) as made:
            await finish(orders.start(made))
            return await self._run(made)

    async def prepare(self, spec: MachineSpec) -> Blank:
        """Makes a blank that can take any snapshot of an equal spec.

        Raises:
            EngineError: it could not be made; nothing of it is left.
        """
        async with self._made(spec) as made:
            orders.keep(made)
            return GvisorBlank(made)

    async def checkpoint(self, machine: Machine, directory: Path) -> Snapshot:
        """Writes the machine's whole state into `directory`; the machine goes on.

        Raises:
            EngineError: `NO_SPACE` when the disk is full. The directory is then gone.
        """
        sandbox = self._running(machine, "checkpoint")
        return await finish(orders.checkpoint(sandbox, directory))

    async def restore(self, blank: Blank, snapshot: Snapshot) -> Machine:
        """Fills the blank with the snapshot.

        Raises:
            EngineError: the snapshot cannot be read or the blank is used up; the blank is gone.
        """
        if not isinstance(blank, GvisorBlank):
            raise EngineError(f"{blank.id} is not a blank of this engine")
        async with self._destroyed_on_error(blank.sandbox):
            if blank.is_used or not blank.sandbox.is_running:
                raise EngineError(f"blank {blank.id} is used up or has ended")
            blank.is_used = True
            if blank.spec != snapshot.spec:
                raise EngineError(f"blank {blank.id} has another spec than the snapshot")
            try:
                size = image.read_size(snapshot.directory, snapshot_format=self._format)
            except image.ImageError as exc:
                raise EngineError(f"restore into {blank.id} failed: {exc}") from exc
            blank.sandbox.continue_kernel()
            await finish(orders.fill(blank.sandbox, snapshot.directory, size))
            return await self._run(blank.sandbox)

    async def pause(self, machine: Machine) -> None:
        """Stops every process; returns when none runs. Idempotent.

        Raises:
            EngineError: the machine has ended or does not answer.
        """
        await finish(orders.set_paused(self._running(machine, "pause"), paused=True))

    async def resume(self, machine: Machine) -> None:
        """Undoes `pause`. Idempotent.

        Raises:
            EngineError: the machine has ended or does not answer.
        """
        await finish(orders.set_paused(self._running(machine, "resume"), paused=False))

    async def destroy(self, item: Machine | Blank) -> None:
        """Ends a machine or blank and removes everything it has on the host. Idempotent.

        Raises:
            EngineError: something could not be removed; the next call tries again.
        """
        if not isinstance(item, (GvisorMachine, GvisorBlank)):
            raise EngineError(f"{item.id} is not of this engine")
        await self._remove(item.sandbox)

    async def _follow(self, sandbox: Sandbox) -> GvisorMachine:
        """The machine of a sandbox that was found: it goes on, or stays paused."""
        if sandbox.is_paused and sandbox.is_held:
            sandbox.room.lower_after(_nothing)
            return GvisorMachine(sandbox)
        sandbox.continue_kernel()
        sandbox.room.lower_after(functools.partial(sandbox.control.wait_done, sandbox.target))
        return await self._run(sandbox)

    async def _run(self, sandbox: Sandbox) -> GvisorMachine:
        await orders.watch(sandbox)
        return GvisorMachine(sandbox)

    async def _copy(self, sandbox: Sandbox) -> Machine:
        """A machine that goes on from where another stands, whether or not that is paused."""
        directory = self._started().copies / sandbox.id
        try:
            snapshot = await finish(orders.checkpoint(sandbox, directory))
            return await self.restore(await self.prepare(sandbox.spec), snapshot)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _started(self) -> Place:
        if self._place is None:
            raise EngineError("the gVisor engine is not started", fault=EngineFault.UNAVAILABLE)
        return self._place

    async def _remove(self, sandbox: Sandbox) -> None:
        await sandbox.destroy()
        self._sandboxes.pop(sandbox.id, None)

    @contextlib.asynccontextmanager
    async def _made(self, spec: MachineSpec) -> AsyncIterator[Sandbox]:
        """Makes a sandbox and keeps it, unless the block fails: then it is destroyed."""
        place = self._started()
        require_bootable(spec, self.facts)
        self._making += 1
        self._none_in_the_making.clear()
        try:
            sandbox_id = f"mt-{secrets.token_hex(6)}"
            made = await making.create(sandbox_id, spec, place, snapshot_format=self._format)
            self._sandboxes[made.id] = made
        finally:
            self._making -= 1
            if self._making == 0:
                self._none_in_the_making.set()
        async with self._destroyed_on_error(made):
            await finish(made.control.connect_loopback(made.target))
            yield made

    @contextlib.asynccontextmanager
    async def _destroyed_on_error(self, sandbox: Sandbox) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await finish(self._remove(sandbox))
            raise

    def _running(self, machine: Machine, order: str) -> Sandbox:
        sandbox = _ours(machine)
        if not sandbox.is_running:
            raise EngineError(f"{order} of {machine.id} failed: it has ended")
        return sandbox


def _ours(machine: Machine) -> Sandbox:
    if not isinstance(machine, GvisorMachine):
        raise EngineError(f"{machine.id} is not a machine of this engine")
    return machine.sandbox


async def _nothing() -> None:
    """What a kernel that is held has to finish."""


def group_of(state: Path) -> str:
    """The control group of the engine with that state folder, from the root of the hierarchy.

    Servers with other homes on this machine must not sweep each other's sandboxes.
    """
    return f"mitos-{hashlib.sha256(bytes(state)).hexdigest()[:12]}"


async def _users(state: Path, machines: Path) -> Users | None:
    """Users for sandboxes, where the host allows them: in a container it may not.

    Those of an earlier process's sandboxes are taken.
    """
    users = Users(state)
    for folder in machines.iterdir():
        entry = journal.read(folder)
        if entry is not None and entry.user is not None:
            users.reserve(entry.user)
    try:
        users.give_back(await users.take())
    except OSError as exc:
        _log.warning("sandboxes share the host's user nobody: %s", exc)
        return None
    return users
