"""The seam between a node and what runs its sandboxes.

An engine turns a root filesystem into running machines and running machines into snapshots. It
knows no templates, no deadlines and no users: `node` decides what to boot, fork and end. An
engine is a folder beside this file, found by `select`, and done when it passes `tests/contract`.

Lifecycle of a machine:

    boot ───────────────┐
                        ├──> Machine ──checkpoint──> Snapshot      (the machine goes on)
    prepare ─> Blank ───┘        │
          restore(blank, snap)   └──pause/resume, destroy

A machine goes on when its process ends, or lets go of it (`leave`), and the next one takes it over:

    start -> adopt, for each machine that is wanted -> sweep, which removes all others
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mitos.engine.facts import Facts
from mitos.host.rootfs import RootFilesystem

__all__ = [
    "Blank",
    "ByteStream",
    "Engine",
    "EngineError",
    "EngineFault",
    "HostProcess",
    "Machine",
    "MachineEnd",
    "MachineSpec",
    "Probe",
    "ProbeCheck",
    "Resources",
    "Snapshot",
    "Usage",
    "require_bootable",
]


class EngineFault(enum.Enum):
    """Why an engine could not do what it was asked."""

    UNAVAILABLE = "unavailable"  # the engine cannot run on this machine: missing or too old
    UNSUPPORTED = "unsupported"  # the engine cannot do it on any machine
    NO_SPACE = "no_space"  # the disk or memory that snapshots live in is full
    TIMED_OUT = "timed_out"  # the engine did not answer in time
    FAILED = "failed"  # anything else the engine reported


class EngineError(Exception):
    """An engine operation failed; whatever it had made is gone again.

    Args:
        message: what failed, on which machine, and why.
        fault: the class of failure.
        remediation: what a person can do, empty if nothing.
    """

    def __init__(
        self, message: str, *, fault: EngineFault = EngineFault.FAILED, remediation: str = ""
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.remediation = remediation


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of one machine.

    Attributes:
        vcpu_count: CPUs it may use at the same time, at least 1.
        memory_mib: memory it may use, its files included, in MiB.
        process_limit: processes and threads that one user inside may have at most; an engine
            allows fewer where the memory is small.
    """

    vcpu_count: int = 1
    memory_mib: int = 512
    process_limit: int = 1024


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is made of; equal specs are interchangeable as blanks.

    Attributes:
        rootfs: the root filesystem, of a kind in the engine's facts. Shared and never written to.
        guest: host folder with `agent` and `kernels/`. Mounted read-only at `/opt/mitos` where the
            root filesystem is a folder; an image already has its files there.
        resources: limits.
        environment: variables of PID 1, inherited by everything inside.
    """

    rootfs: RootFilesystem
    guest: Path
    resources: Resources = field(default_factory=Resources)
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


class MachineEnd(enum.Enum):
    """Why a machine is no longer running."""

    DESTROYED = "destroyed"  # the node asked for it
    EXITED = "exited"  # its PID 1 ended by itself
    OUT_OF_MEMORY = "out_of_memory"  # the kernel of the host killed it at its memory limit
    PROCESS_LIMIT = "process_limit"  # the host gave it no further process or thread
    FILES_LOST = "files_lost"  # the process on the host that served its files ended
    HOST_RESTARTED = "host_restarted"  # the host was started anew while nobody followed it
    LOST = "lost"  # its processes vanished for a reason we do not know


class HostProcess(enum.Enum):
    """What a machine is on the host: an engine's processes, by what they do for it."""

    KERNEL = "kernel"  # runs it
    FILES = "files"  # serves its files


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A machine's memory, processes and files at one instant, in a folder.

    Attributes:
        directory: owned by whoever asked for the checkpoint; deleting it deletes the snapshot.
        spec: the spec a blank must have to be restored from it.
    """

    directory: Path
    spec: MachineSpec

    def size_bytes(self) -> int:
        """Disk space of its files, in bytes; 0 when they are gone."""
        try:
            return sum(each.stat().st_blocks for each in self.directory.iterdir()) * 512
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a machine uses now. An engine leaves at 0 what its machines cannot have.

    Attributes:
        memory_bytes: resident memory, what it shares included.
        cpu_seconds: CPU time since it began.
        shared_bytes: the part of its memory that other machines use as well.
        balloon_bytes: memory that the host took back from the guest.
        steal_seconds: time since it began in which it could run and the host ran others.
        disk_bytes: disk that holds what it changed.
    """

    memory_bytes: int
    cpu_seconds: float
    shared_bytes: int = 0
    balloon_bytes: int = 0
    steal_seconds: float = 0.0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """One line of an engine's self-examination."""

    name: str
    passed: bool
    detail: str
    remediation: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether an engine can run here, and what was looked at."""

    engine: str
    checks: tuple[ProbeCheck, ...]

    @property
    def usable(self) -> bool:
        """True when every required check passed."""
        return all(check.passed for check in self.checks if check.required)


class ByteStream(Protocol):
    """A machine's link to its agent: an ordered, reliable stream of bytes."""

    async def read(self) -> bytes:
        """Waits for bytes; returns 1 to 262,144 of them, or b"" once the other side is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Writes all of `data`, waiting while the other side is slow.

        Raises:
            ConnectionError: the other side is gone.
        """
        ...

    async def drained(self) -> None:
        """Waits until the other side has read all that was written, also by an earlier process.

        Raises:
            ConnectionError: the stream is closed.
        """
        ...

    async def close(self) -> None:
        """Frees the descriptors; pending reads return b"". Idempotent."""
        ...


class Machine(Protocol):
    """A running machine. Owned by whoever got it from the engine, who must `destroy` it."""

    @property
    def id(self) -> str:
        """Unique among the engine's machines; letters, digits, `-`."""
        ...

    @property
    def spec(self) -> MachineSpec: ...

    @property
    def link(self) -> ByteStream:
        """The stream to the agent, open from the moment the machine exists.

        That of an adopted machine begins anywhere, in both directions (`agent/takeover.py`).
        """
        ...

    @property
    def is_paused(self) -> bool:
        """True from `pause` to `resume`, also over an adoption."""
        ...

    @property
    def snapshot_format(self) -> str:
        """Names what can read its snapshots: the engine's own, unless another release runs it."""
        ...

    async def wait_end(self) -> MachineEnd:
        """Waits until the machine no longer runs, and says why. Any number of callers."""
        ...

    async def usage(self) -> Usage:
        """What it uses now."""
        ...

    async def stopped(self) -> HostProcess | None:
        """The process on the host that somebody stopped, so that the machine cannot go on.

        None when none is, and for a machine that is paused or has ended.
        """
        ...


class Blank(Protocol):
    """A prepared place for a restore. Owned by whoever got it; `restore` consumes it."""

    @property
    def id(self) -> str: ...

    @property
    def spec(self) -> MachineSpec: ...


class Engine(Protocol):
    """Runs machines. Every method leaves nothing behind when it raises `EngineError`.

    Methods may be called concurrently for different machines. For one machine the caller sees to it
    that `checkpoint`, `pause`, `resume` do not overlap; `destroy` may come at any time and wins.
    """

    name: str
    facts: Facts

    @property
    def snapshot_format(self) -> str:
        """Names what can read this engine's snapshots; known once started."""
        ...

    @property
    def is_tested(self) -> bool:
        """False when its program is of a release that nobody has tested; known once started.

        Whoever started it then tries it out first (`node/trial.py`).
        """
        ...

    async def probe(self) -> Probe:
        """Looks at this machine; starts nothing that outlives the call."""
        ...

    async def start(self) -> None:
        """Makes the engine's folders. What an earlier process left stays until `sweep`.

        Raises:
            EngineError: `UNAVAILABLE` when `probe` finds the engine not usable.
        """
        ...

    async def adopt(self, machine_id: str, spec: MachineSpec) -> Machine | MachineEnd:
        """Takes over a machine that an earlier process ran, or says how it ended.

        A machine whose pause was cut short may come back as a copy, under another id: the caller
        notes the id, and the first one goes with `sweep`.

        Args:
            machine_id: as the earlier process knew it.
            spec: as well.

        Raises:
            EngineError: it is there and cannot be taken over. It is as it was.
        """
        ...

    async def adopt_blanks(self, spec: MachineSpec) -> list[Blank]:
        """Takes over the blanks of an equal spec that an earlier process made and did not use."""
        ...

    async def sweep(self) -> None:
        """Removes every machine and blank that an earlier process left and nobody adopted."""
        ...

    async def leave(self, machine: Machine) -> None:
        """Lets go of a machine without ending it: it goes on, or stays paused, to be adopted."""
        ...

    async def close(self) -> None:
        """Destroys every machine and blank but those that were left. Idempotent."""
        ...

    async def boot(self, spec: MachineSpec) -> Machine:
        """Starts a machine cold: PID 1 is `/opt/mitos/agent`.

        Raises:
            EngineError: `UNSUPPORTED` for a root filesystem of a kind that `facts` does not name.
        """
        ...

    async def prepare(self, spec: MachineSpec) -> Blank:
        """Makes a blank that can take any snapshot of an equal spec.

        Raises:
            EngineError: `UNSUPPORTED` for a root filesystem of a kind that `facts` does not name.
        """
        ...

    async def checkpoint(self, machine: Machine, directory: Path) -> Snapshot:
        """Writes the machine's whole state into `directory` (made if absent); the machine goes on.

        Processes stand still from the instant of the snapshot until it is written.
        On failure the machine still runs and the directory is removed.
        """
        ...

    async def restore(self, blank: Blank, snapshot: Snapshot) -> Machine:
        """Fills the blank with the snapshot: a machine that goes on from the snapshot's instant.

        The blank is consumed, also on failure. The snapshot may be restored any number of times,
        also at the same time, and may be deleted as soon as all restores from it have returned.
        """
        ...

    async def pause(self, machine: Machine) -> None:
        """Stops every process; returns when none runs. Idempotent."""
        ...

    async def resume(self, machine: Machine) -> None:
        """Undoes `pause`. Idempotent."""
        ...

    async def destroy(self, item: Machine | Blank) -> None:
        """Ends it and removes its processes, mounts, folders, control groups. Idempotent."""
        ...


def require_bootable(spec: MachineSpec, facts: Facts) -> None:
    """Refuses a root filesystem of a kind that an engine does not boot.

    Raises:
        EngineError: `UNSUPPORTED`.
    """
    if spec.rootfs.kind not in facts.root_kinds:
        known = " or ".join(kind.value for kind in facts.root_kinds)
        raise EngineError(
            f"{facts.title} cannot boot {spec.rootfs.path}: it is a {spec.rootfs.kind.value}",
            fault=EngineFault.UNSUPPORTED,
            remediation=f"Give it a root filesystem that is a {known}, or use another engine.",
        )
