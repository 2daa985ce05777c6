"""One live sandbox: its machine, its link, its lifecycle and what is open on it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mitos.engine.base import Machine, MachineEnd
from mitos.node.guest import Guest
from mitos.node.link import Link
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.network import NetworkPosture

__all__ = ["Phase", "Sandbox", "SandboxRecord", "loss_error"]


class Phase(str, enum.Enum):
    """Where a sandbox is in its life."""

    READY = "Ready"
    PAUSED = "Paused"
    TERMINATING = "Terminating"
    FAILED = "Failed"

    @property
    def can_run(self) -> bool:
        """Runtime calls are served."""
        return self is Phase.READY

    @property
    def can_fork(self) -> bool:
        """A live fork can be taken: its agent must be able to hold still."""
        return self is Phase.READY

    @property
    def can_pause(self) -> bool:
        """`pause` and `resume` are allowed; both are idempotent."""
        return self in (Phase.READY, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """What the outside may know about a sandbox.

    Attributes:
        fork_time_ms: from the request to a machine that answers.
        deadline_unix: when it will be terminated, unix seconds, or None.
        parent_id: the sandbox it was forked from, or None.
    """

    id: str
    template_id: str
    created_at: datetime
    fork_time_ms: float
    network: NetworkPosture
    phase: Phase
    deadline_unix: int | None
    parent_id: str | None


_LOSS = {
    MachineEnd.OUT_OF_MEMORY: (
        "it reached its memory limit of {memory_mib} MiB and was killed",
        "Create the template with a larger resources.mem_size_mib; files count as memory too.",
    ),
    MachineEnd.EXITED: (
        "its first process ended",
        "Create a new sandbox; do not kill process 1 or write to its standard output.",
    ),
    MachineEnd.LOST: (
        "its processes vanished from the host",
        "Create a new sandbox and look at the server's log.",
    ),
    MachineEnd.DESTROYED: ("it was terminated", "Create a new sandbox."),
}


def loss_error(sandbox_id: str, machine: Machine, end: MachineEnd) -> ApiError:
    """The error for a sandbox whose machine ended by itself."""
    cause, remediation = _LOSS[end]
    return ApiError(
        "not_found",
        f"sandbox {sandbox_id} has ended",
        cause=cause.format(memory_mib=machine.spec.resources.memory_mib),
        remediation=remediation,
        context={"sandbox": sandbox_id},
    )


class Sandbox:
    """A running machine with a name. `Node` owns it and is the only one that changes its phase.

    Args:
        record: as it is at the start; later readings come from `record()`.
        machine: owned by the node.
        link: to the machine's agent, owned by this object.
        max_streams: slots for exec, run_code and terminals; 0 means no limit.
    """

    def __init__(
        self, record: SandboxRecord, *, machine: Machine, link: Link, max_streams: int
    ) -> None:
        self._record = record
        self._max_streams = max_streams
        self.machine = machine
        self.link = link
        self.guest = Guest(link, self._explain_loss)
        self.phase = Phase.READY
        self.deadline: float | None = None
        self.open_streams = 0
        self.on_end: list[Callable[[], None]] = []
        self.lock = asyncio.Lock()
        """Held by whoever snapshots, pauses or resumes the machine."""
        self.paused = contextlib.ExitStack()
        """Undone on resume: what holds only while the machine stands still."""
        self.remaining_s: float | None = None
        """What was left of the deadline when the sandbox was paused."""

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self._record.id

    @property
    def template_id(self) -> str:
        """The template it came from, directly or through its parents."""
        return self._record.template_id

    @property
    def network(self) -> NetworkPosture:
        """The posture it was created with."""
        return self._record.network

    def record(self) -> SandboxRecord:
        """A reading of the sandbox as it is now."""
        record = self._record
        return SandboxRecord(
            id=record.id,
            template_id=record.template_id,
            created_at=record.created_at,
            fork_time_ms=record.fork_time_ms,
            network=record.network,
            phase=self.phase,
            deadline_unix=None if self.deadline is None else int(self.deadline),
            parent_id=record.parent_id,
        )

    def require_running(self) -> None:
        """Refuses runtime calls in any phase but `READY`.

        Raises:
            ApiError: with Connect code `failed_precondition`.
        """
        if not self.phase.can_run:
            raise ApiError(
                "invalid_input",
                f"sandbox {self.id} is {self.phase.value.lower()}",
                remediation="Resume the sandbox first: sb.resume() or POST /v1/resume.",
                context={"sandbox": self.id},
                status=409,
                connect=ConnectCode.FAILED_PRECONDITION,
            )

    @contextlib.contextmanager
    def stream(self) -> Iterator[Guest]:
        """Takes one of the sandbox's stream slots.

        Raises:
            ApiError: `too_many_streams` when all are taken.
        """
        self.require_running()
        if self._max_streams and self.open_streams >= self._max_streams:
            raise ApiError(
                "too_many_streams",
                f"sandbox {self.id} has {self.open_streams} open streams",
                context={"sandbox": self.id},
            )
        self.open_streams += 1
        try:
            yield self.guest
        finally:
            self.open_streams -= 1

    async def _explain_loss(self) -> ApiError:
        """Why the link broke in mid-call: the machine's end says, if it comes soon."""
        if self.phase is Phase.TERMINATING:
            return loss_error(self.id, self.machine, MachineEnd.DESTROYED)
        try:
            async with asyncio.timeout(1.0):
                return loss_error(self.id, self.machine, await self.machine.wait_end())
        except TimeoutError:
            return ApiError(
                "internal",
                f"sandbox {self.id} no longer answers and is given up",
                remediation="Create a new sandbox.",
                context={"sandbox": self.id},
                connect=ConnectCode.UNAVAILABLE,
            )
