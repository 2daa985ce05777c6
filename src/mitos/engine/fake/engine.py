"""The engine's methods over guests in memory.

A snapshot's state stays in this process; the folder holds a token that leads to it, so that a
folder that was deleted or damaged cannot be restored, as with a real engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from pathlib import Path

from mitos.engine.base import (
    Blank,
    EngineError,
    HostProcess,
    Machine,
    MachineEnd,
    MachineSpec,
    Probe,
    ProbeCheck,
    Snapshot,
    Usage,
    require_bootable,
)
from mitos.engine.fake.facts import FACTS
from mitos.engine.fake.guest import FakeGuest, GuestState
from mitos.engine.fake.pipe import pipe

__all__ = ["FakeEngine", "FakeHost", "FakeMachine", "Hold"]

_TOKEN_FILE = "state"  # noqa: S105  a file's name


class FakeBlank:
    """A blank: only a name and a spec."""

    def __init__(self, blank_id: str, spec: MachineSpec) -> None:
        self.id = blank_id
        self.spec = spec
        self.is_used = False


class FakeMachine:
    """A guest and the task that serves it."""

    def __init__(
        self,
        machine_id: str,
        spec: MachineSpec,
        state: GuestState,
        *,
        is_restored: bool,
        snapshot_format: str,
    ) -> None:
        self.id = machine_id
        self.spec = spec
        self.snapshot_format = snapshot_format
        self._server_end, self._guest_end = pipe()
        self.link = self._server_end.opened()
        self.guest = FakeGuest(state, self._guest_end, is_restored=is_restored)
        self.is_paused = False
        self.stopped_process: HostProcess | None = None
        """What a test makes its host look like."""
        self._paused = contextlib.ExitStack()
        self._end: asyncio.Future[MachineEnd] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(), name=f"fake-{machine_id}")

    @property
    def is_running(self) -> bool:
        """True until it ended."""
        return not self._end.done()

    async def wait_end(self) -> MachineEnd:
        """Waits for its end and says why."""
        return await asyncio.shield(self._end)

    async def usage(self) -> Usage:
        """A plausible figure: nothing real is used."""
        self.require_running()
        return Usage(memory_bytes=1 << 20, cpu_seconds=0.0)

    async def stopped(self) -> HostProcess | None:
        """The process that a test stopped."""
        return None if self.is_paused or not self.is_running else self.stopped_process

    async def stop(self, end: MachineEnd = MachineEnd.DESTROYED) -> None:
        """Ends it, as if for this reason. Idempotent."""
        if self.is_running:
            self._end.set_result(end)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._guest_end.close()

    def pause(self, *, paused: bool) -> None:
        """Stops or lets go on."""
        self.is_paused = paused
        if paused:
            self.guest.running.clear()
            self._paused.enter_context(self.guest.clock.held())
        else:
            self._paused.close()
            self.guest.running.set()

    def require_running(self) -> None:
        """Refuses orders to a machine that ended.

        Raises:
            EngineError: it ended.
        """
        if not self.is_running:
            raise EngineError(f"machine {self.id} has ended")

    async def open_link(self) -> None:
        """Opens its link anew, for who takes it over."""
        await self.link.close()
        self.link = self._server_end.opened()

    async def _serve(self) -> None:
        await self.guest.run()
        if self.is_running:
            self._end.set_result(MachineEnd.EXITED)
        await self._guest_end.close()


class FakeHost:
    """What outlives an engine: the machines, and the states that snapshots lead to."""

    def __init__(self) -> None:
        self.machines: dict[str, FakeMachine] = {}
        self.blanks: dict[str, FakeBlank] = {}
        self.states: dict[str, GuestState] = {}
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """An id that no machine has had."""
        return f"fake-{next(self._numbers)}"


class Hold:
    """A call that waits: `reached` is set once it does, `let_go` lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()


class FakeEngine:
    """Runs guests in this process.

    Tests make it fail: `fail_next` names a method whose next call raises, `mute_next_identify`
    makes the next restored guest keep silent in its handshake, `clock_error_s` sets the clocks of
    restored guests wrong, `hold_next` makes a call wait.

    Args:
        host: where machines go on that an earlier engine left; one of its own if None.
    """

    name = "fake"
    facts = FACTS

    def __init__(self, host: FakeHost | None = None) -> None:
        self.host = host or FakeHost()
        self.machines: dict[str, FakeMachine] = {}
        self.fail_next: str | None = None
        self.mute_next_identify = False
        self.clock_error_s = 0.0
        self._holds: dict[str, Hold] = {}
        self._left: set[str] = set()
        self._blanks: set[str] = set()
        self._is_open = False

    @property
    def snapshot_format(self) -> str:
        """Another one for every host: snapshots live and die with it."""
        return f"fake-{id(self.host)}"

    @property
    def is_tested(self) -> bool:
        """It always is."""
        return True

    async def probe(self) -> Probe:
        """Always usable."""
        return Probe(self.name, (ProbeCheck("memory", passed=True, detail="no isolation"),))

    async def start(self) -> None:
        """Opens the engine; the host's machines go on."""
        self._is_open = True
        self._left = {*self.host.machines, *self.host.blanks}

    async def adopt(self, machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:  # noqa: ARG002
        """Takes over a machine of the host, or says how it ended."""
        await self._attempt("adopt")
        found = self.host.machines.get(machine_id)
        if found is None:
            return MachineEnd.LOST
        if not found.is_running:
            return await found.wait_end()
        await found.open_link()
        self.machines[machine_id] = found
        self._left.discard(machine_id)
        return found

    async def adopt_blanks(self, spec: MachineSpec) -> list[Blank]:
        """Takes over the host's blanks of a spec."""
        blanks = [self.host.blanks[each] for each in self._left & self.host.blanks.keys()]
        found: list[Blank] = [blank for blank in blanks if blank.spec == spec]
        self._blanks.update(blank.id for blank in found)
        self._left -= self._blanks
        return found

    async def sweep(self) -> None:
        """Ends the host's machines and blanks that nobody adopted."""
        strays, self._left = self._left, set()
        for machine_id in strays & self.host.machines.keys():
            await self.destroy(self.host.machines[machine_id])
        for blank_id in strays & self.host.blanks.keys():
            await self.destroy(self.host.blanks[blank_id])

    async def leave(self, machine: Machine) -> None:
        """Lets go of a machine, which goes on."""
        await _known(machine).link.close()
        self.machines.pop(machine.id, None)

    async def close(self) -> None:
        """Ends every machine but those that were left. Idempotent."""
        self._is_open = False
        for machine in list(self.machines.values()):
            await self.destroy(machine)
        for blank_id in self._blanks & self.host.blanks.keys():
            await self.destroy(self.host.blanks[blank_id])

    async def boot(self, spec: MachineSpec) -> Machine:
        """Starts an empty guest."""
        await self._attempt("boot")
        require_bootable(spec, self.facts)
        return self._add(spec, GuestState(), is_restored=False)

    async def prepare(self, spec: MachineSpec) -> Blank:
        """Makes a blank."""
        await self._attempt("prepare")
        require_bootable(spec, self.facts)
        blank = FakeBlank(self.host.new_id(), spec)
        self.host.blanks[blank.id] = blank
        self._blanks.add(blank.id)
        return blank

    async def checkpoint(self, machine: Machine, directory: Path) -> Snapshot:
        """Copies the guest's state."""
        found = _ours(machine)
        await self._attempt("checkpoint")
        token = secrets.token_hex(16)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / _TOKEN_FILE).write_text(token)
        except OSError as exc:
            raise EngineError(f"checkpoint of {machine.id} failed: {exc}") from exc
        self.host.states[token] = found.guest.state.copy()
        return Snapshot(directory, machine.spec)

    async def restore(self, blank: Blank, snapshot: Snapshot) -> Machine:
        """Starts a guest from a copied state."""
        if not isinstance(blank, FakeBlank) or blank.is_used:
            raise EngineError(f"blank {blank.id} is used up")
        await self.destroy(blank)
        await self._attempt("restore")
        if blank.spec != snapshot.spec:
            raise EngineError(f"blank {blank.id} has another spec than the snapshot")
        try:
            state = self.host.states[(snapshot.directory / _TOKEN_FILE).read_text()]
        except (OSError, ValueError, KeyError) as exc:
            raise EngineError(f"restore into {blank.id} failed: no such snapshot") from exc
        machine = self._add(blank.spec, state.copy(), is_restored=True)
        machine.guest.mute_identify, self.mute_next_identify = self.mute_next_identify, False
        machine.guest.clock_error_s = self.clock_error_s
        return machine

    async def pause(self, machine: Machine) -> None:
        """Stops the guest."""
        await self._attempt("pause")
        _ours(machine).pause(paused=True)

    async def resume(self, machine: Machine) -> None:
        """Lets it go on."""
        await self._attempt("resume")
        _ours(machine).pause(paused=False)

    async def destroy(self, item: Machine | Blank) -> None:
        """Ends a machine or blank. Idempotent."""
        if isinstance(item, FakeMachine):
            await item.stop()
            self.machines.pop(item.id, None)
            self.host.machines.pop(item.id, None)
        elif isinstance(item, FakeBlank):
            item.is_used = True
            self.host.blanks.pop(item.id, None)

    def _add(self, spec: MachineSpec, state: GuestState, *, is_restored: bool) -> FakeMachine:
        machine = FakeMachine(
            self.host.new_id(),
            spec,
            state,
            is_restored=is_restored,
            snapshot_format=self.snapshot_format,
        )
        self.machines[machine.id] = self.host.machines[machine.id] = machine
        return machine

    def hold_next(self, method: str) -> Hold:
        """The next call of the method waits until the hold is let go."""
        hold = self._holds[method] = Hold()
        return hold

    async def _attempt(self, method: str) -> None:
        if not self._is_open:
            raise EngineError("the fake engine is not started")
        if (hold := self._holds.pop(method, None)) is not None:
            hold.reached.set()
            await hold.let_go.wait()
        if self.fail_next == method:
            self.fail_next = None
            raise EngineError(f"{method} failed because the test wanted it to")


def _ours(machine: Machine) -> FakeMachine:
    found = _known(machine)
    found.require_running()
    return found


def _known(machine: Machine) -> FakeMachine:
    if not isinstance(machine, FakeMachine):
        raise EngineError(f"{machine.id} is not a machine of this engine")
    return machine
