"""The gVisor engine: the seam's methods over sandboxes, and who owns them.

A blank and the machine it becomes are one sandbox. The engine keeps every sandbox until its removal
has succeeded, so `close` finds all of them. An order once given to a sandbox is seen through even
when the caller is cancelled: half a pause would leave it unknown whether the sandbox stands still.

On crash: sandboxes keep running without us; the next `start` removes them. Full disk: `checkpoint`
fails with `NO_SPACE` before it stops the machine. Slow disk: orders have deadlines that grow with a
machine's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable
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
from mitos.engine.gvisor import image, probe, room, sandbox
from mitos.engine.gvisor.command import CommandControl
from mitos.engine.gvisor.control import Control, SocketControl, order_failed
from mitos.engine.gvisor.facts import FACTS
from mitos.engine.gvisor.machine import GvisorBlank, GvisorMachine
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.release import Traits
from mitos.engine.gvisor.runsc import Runsc
from mitos.engine.gvisor.sandbox import Sandbox
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.gvisor.users import Users
from mitos.host import process
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
        self._control: Control = SocketControl(Traits())
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
        """Makes the engine's folders and removes what a crashed predecessor left in them.

        Raises:
            EngineError: `UNAVAILABLE` when the engine cannot run here.
        """
        findings = await probe.examine(self._settings)
        if findings.release is None or findings.hierarchy is None or not findings.probe.usable:
            raise probe.unavailable(findings.probe)
        state = self._settings.state.resolve()
        runsc = Runsc(self._settings.runsc.resolve(), state / "runsc")
        place = Place(
            settings=self._settings,
            runsc=runsc,
            machines=state / "machines",
            hierarchy=findings.hierarchy,
            group=self.control_group,
            users=await _users(state),
        )
        for folder in (state, runsc.root, place.machines):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._format = f"{self.name}-{findings.release}"
        self._is_tested = findings.release.is_known
        traits = findings.release.traits
        self._control = SocketControl(traits) if traits.has_socket else CommandControl(runsc)
        self._place = place
        _log.info(
            "gVisor engine uses runsc %s by %s", findings.release, type(self._control).__name__
        )

    async def adopt(self, machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:  # noqa: ARG002
        """Cannot take over what an earlier process left."""
        return MachineEnd.LOST

    async def sweep(self) -> None:
        """Removes what an earlier process left."""
        if self._place is not None:
            await _sweep(self._place)

    async def leave(self, machine: Machine) -> None:
        """Cannot let go of a machine."""
        raise EngineError(f"{machine.id} cannot be left", fault=EngineFault.UNSUPPORTED)

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
            await finish(self._control.start(made.target))
            return await self._run(made)

    async def prepare(self, spec: MachineSpec) -> Blank:
        """Makes a blank that can take any snapshot of an equal spec.

        Raises:
            EngineError: it could not be made; nothing of it is left.
        """
        async with self._made(spec) as made:
            made.stop_kernel()
            return GvisorBlank(made)

    async def checkpoint(self, machine: Machine, directory: Path) -> Snapshot:
        """Writes the machine's whole state into `directory`; the machine goes on.

        Raises:
            EngineError: `NO_SPACE` when the disk is full. The directory is then gone.
        """
        sandbox = self._running(machine, "checkpoint")
        return await finish(self._checkpoint(sandbox, directory))

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
            await finish(self._fill(blank.sandbox, snapshot.directory, size))
            return await self._run(blank.sandbox)

    async def pause(self, machine: Machine) -> None:
        """Stops every process; returns when none runs. Idempotent.

        Raises:
            EngineError: the machine has ended or does not answer.
        """
        await finish(self._set_paused(self._running(machine, "pause"), paused=True))

    async def resume(self, machine: Machine) -> None:
        """Undoes `pause`. Idempotent.

        Raises:
            EngineError: the machine has ended or does not answer.
        """
        await finish(self._set_paused(self._running(machine, "resume"), paused=False))

    async def destroy(self, item: Machine | Blank) -> None:
        """Ends a machine or blank and removes everything it has on the host. Idempotent.

        Raises:
            EngineError: something could not be removed; the next call tries again.
        """
        if not isinstance(item, (GvisorMachine, GvisorBlank)):
            raise EngineError(f"{item.id} is not of this engine")
        await self._remove(item.sandbox)

    async def _checkpoint(self, sandbox: Sandbox, directory: Path) -> Snapshot:
        sandbox.continue_kernel()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with self._room(sandbox, lambda: self._to_checkpoint(sandbox)):
                await self._control.checkpoint(sandbox.target, directory, sandbox.memory())
            image.seal(directory, snapshot_format=self._format)
        except BaseException as exc:
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(exc, OSError):
                raise order_failed("checkpoint", sandbox.target, str(exc)) from exc
            raise
        finally:
            if sandbox.is_paused:
                sandbox.stop_kernel()
        return Snapshot(directory, sandbox.spec)

    def _to_checkpoint(self, sandbox: Sandbox) -> int:
        held = sandbox.memory()
        counted = held.shared_bytes if self._control.charges_snapshots else 0
        return room.to_checkpoint(held) + counted

    async def _fill(self, sandbox: Sandbox, directory: Path, size: image.Size) -> None:
        memory_mib = sandbox.spec.resources.memory_mib
        if size.pages_bytes > memory_mib << 20:
            raise room.too_small(memory_mib)
        try:
            async with self._room(sandbox, lambda: room.to_restore(size), size.pages_bytes):
                await self._control.restore(sandbox.target, directory)
        except (EngineError, OSError) as exc:
            if sandbox.is_out_of_memory:
                raise room.too_small(memory_mib) from exc
            if isinstance(exc, OSError):
                raise order_failed("restore", sandbox.target, str(exc)) from exc
            raise

    @contextlib.asynccontextmanager
    async def _room(
        self, sandbox: Sandbox, work: Callable[[], int], content_bytes: int = 0
    ) -> AsyncIterator[None]:
        """Room for the kernel's work, beyond the sandbox's limit where it must be.

        Args:
            sandbox: whose kernel works.
            work: computes how much memory that takes.
            content_bytes: what the guest will have more afterwards.
        """
        give_back = functools.partial(self._control.give_memory_back, sandbox.target)
        async with contextlib.AsyncExitStack() as stack:
            if not sandbox.room.fits(content_bytes + work()):
                await give_back()
            if not sandbox.room.fits(content_bytes + work()):
                raised = sandbox.room.raised(work(), give_back, content_bytes=content_bytes)
                await stack.enter_async_context(raised)
            yield

    async def _set_paused(self, sandbox: Sandbox, *, paused: bool) -> None:
        # The runtime counts pauses, and a resume too many ends the sandbox.
        if sandbox.is_paused == paused:
            return
        order = self._control.pause if paused else self._control.resume
        sandbox.continue_kernel()
        await order(sandbox.target)
        sandbox.is_paused = paused
        if paused:
            sandbox.stop_kernel()

    async def _run(self, sandbox: Sandbox) -> GvisorMachine:
        sandbox.expect_exit(await self._control.watch_exit(sandbox.target))
        return GvisorMachine(sandbox, self._format)

    async def _remove(self, sandbox: Sandbox) -> None:
        await sandbox.destroy()
        self._sandboxes.pop(sandbox.id, None)

    @contextlib.asynccontextmanager
    async def _made(self, spec: MachineSpec) -> AsyncIterator[Sandbox]:
        """Makes a sandbox and keeps it, unless the block fails: then it is destroyed."""
        if self._place is None:
            raise EngineError("the gVisor engine is not started", fault=EngineFault.UNAVAILABLE)
        require_bootable(spec, self.facts)
        self._making += 1
        self._none_in_the_making.clear()
        try:
            sandbox_id = f"mt-{secrets.token_hex(6)}"
            made = await Sandbox.create(sandbox_id, spec, self._place)
            self._sandboxes[made.id] = made
        finally:
            self._making -= 1
            if self._making == 0:
                self._none_in_the_making.set()
        async with self._destroyed_on_error(made):
            await finish(self._control.connect_loopback(made.target))
            yield made

    @contextlib.asynccontextmanager
    async def _destroyed_on_error(self, sandbox: Sandbox) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            await finish(self._remove(sandbox))
            raise

    def _running(self, machine: Machine, order: str) -> Sandbox:
        if not isinstance(machine, GvisorMachine):
            raise EngineError(f"{machine.id} is not a machine of this engine")
        if not machine.sandbox.is_running:
            raise EngineError(f"{order} of {machine.id} failed: it has ended")
        return machine.sandbox


def group_of(state: Path) -> str:
    """The control group of the engine with that state folder, from the root of the hierarchy.

    Servers with other homes on this machine must not sweep each other's sandboxes.
    """
    return f"mitos-{hashlib.sha256(bytes(state)).hexdigest()[:12]}"


async def _users(state: Path) -> Users | None:
    """Users for sandboxes, where the host allows them: in a container it may not."""
    users = Users(state)
    try:
        users.give_back(await users.take())
    except OSError as exc:
        _log.warning("sandboxes share the host's user nobody: %s", exc)
        return None
    return users


async def _sweep(place: Place) -> None:
    for pid in process.find(f"--root={place.runsc.root}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    found = place.hierarchy.children(place.group)
    found.update(entry.name for entry in place.machines.iterdir())
    for sandbox_id in sorted(found):
        _log.warning("removing sandbox %s that a previous server left behind", sandbox_id)
        await sandbox.purge(sandbox_id, place)
