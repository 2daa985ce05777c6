"""One live sandbox: its machine, its link, its lifecycle and what is open on it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.engine.base import Machine, MachineEnd, Snapshot
from mitos.node.budget import Budget
from mitos.node.launch import Launched
from mitos.wire.errors import ApiError, ConnectCode
from mitos.wire.network import NetworkPosture

__all__ = ["Phase", "Sandbox", "SandboxRecord", "loss_error"]


class Phase(str, enum.Enum):
    """Where a sandbox is in its life."""

    READY = "Ready"
    PAUSED = "Paused"
    HIBERNATED = "Hibernated"
    TERMINATING = "Terminating"
    FAILED = "Failed"

    @property
    def can_run(self) -> bool:
        """Runtime calls are served; the first one of a hibernated sandbox wakes it."""
        return self in (Phase.READY, Phase.HIBERNATED)

    @property
    def can_snapshot(self) -> bool:
        """Its machine can be written down: for a fork, a checkpoint or hibernation."""
        return self in (Phase.READY, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """What the outside may know about a sandbox.

    Attributes:
        fork_time_ms: from the request to a machine that answers.
        deadline_unix: when it will be terminated, unix seconds, or None.
        parent_id: the sandbox it was forked from, or None.
        uid: names this one life; an id can be used again, a uid never.
    """

    id: str
    template_id: str
    created_at: datetime
    fork_time_ms: float
    network: NetworkPosture
    phase: Phase
    deadline_unix: int | None
    parent_id: str | None
    uid: str


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
    """A machine with a name. `Node` owns it and is the only one that changes its phase.

    Its machine may change under it: hibernation takes it away, waking and restoring bring another.
    `guest` stays the same through all of it.

    Args:
        record: as it is at the start; later readings come from `record()`.
        body: its machine and link, owned by the node; None for one that is hibernated.
        max_streams: slots for exec, run_code and terminals; 0 means no limit.
        budget: what it may do for itself.
        wake: called when a call finds the sandbox hibernated; returns once it runs, or raises.
    """

    def __init__(
        self,
        record: SandboxRecord,
        *,
        body: Launched | None,
        max_streams: int,
        budget: Budget,
        wake: Callable[[Sandbox], Awaitable[None]],
    ) -> None:
        self._record = record
        self._max_streams = max_streams
        self._wake = wake
        self.budget = budget
        self.body = body
        self.agent = AgentClient(self, self._explain_loss)
        self.phase = record.phase
        self.deadline: float | None = None
        self.open_streams = 0
        self.on_end: list[Callable[[], None]] = []
        self.open_calls = 0
        self.last_active = time.time()
        """When the last runtime call ended, unix seconds; counts only while none is open."""
        self.lock = asyncio.Lock()
        """Held by whoever snapshots, pauses, wakes or replaces the machine."""
        self.paused = contextlib.ExitStack()
        """Undone on resume: what holds only while the machine stands still."""
        self.remaining_s: float | None = None
        """What was left of the deadline when the sandbox was paused or hibernated."""
        self.snapshot: Snapshot | None = None
        """What it wakes from; None unless it is hibernated."""

    @property
    def machine(self) -> Machine:
        """Its machine.

        Preconditions: it is not hibernated.
        """
        assert self.body is not None
        return self.body.machine

    @property
    def link(self) -> Link:
        """The link to its machine's agent.

        Preconditions: it is not hibernated.
        """
        assert self.body is not None
        return self.body.link

    @property
    def is_busy(self) -> bool:
        """True while somebody has a stream or a call open on it."""
        return self.open_streams > 0 or self.open_calls > 0

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

    @property
    def uid(self) -> str:
        """Names this one life of the id."""
        return self._record.uid

    @property
    def parent_id(self) -> str | None:
        """The sandbox it was forked from, or None."""
        return self._record.parent_id

    def rename(self, sandbox_id: str) -> None:
        """Gives it another id; whoever keeps sandboxes by id must do the same."""
        self._record = replace(self._record, id=sandbox_id)

    def tell_end(self) -> None:
        """Tells those who wait for the end of this id."""
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback()

    def record(self) -> SandboxRecord:
        """A reading of the sandbox as it is now."""
        deadline_unix = None if self.deadline is None else int(self.deadline)
        return replace(self._record, phase=self.phase, deadline_unix=deadline_unix)

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

    def observer(self) -> AgentClient | None:
        """Its agent for monitoring: never wakes it, is no use of it. None unless it runs."""
        return AgentClient(self.link, self._explain_loss) if self.phase is Phase.READY else None

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Link]:
        """Its link for one call; wakes it first if it is hibernated.

        Raises:
            ApiError: it is paused, or cannot be woken.
        """
        self.open_calls += 1
        try:
            if self.phase is Phase.HIBERNATED:
                await self._wake(self)
            self.require_running()
            yield self.link
        finally:
            self.open_calls -= 1
            self.last_active = time.time()

    @contextlib.contextmanager
    def stream(self) -> Iterator[AgentClient]:
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
            yield self.agent
        finally:
            self.open_streams -= 1
            self.last_active = time.time()

    async def _explain_loss(self) -> ApiError:
        """Why the link broke in mid-call: the machine's end says, if it comes soon."""
        body = self.body
        if body is None or (self.phase is not Phase.TERMINATING and not body.link.lost.is_set()):
            return ApiError(
                "canceled",
                f"sandbox {self.id} was restored to a checkpoint while the call ran",
                context={"sandbox": self.id},
            )
        if self.phase is Phase.TERMINATING:
            return loss_error(self.id, body.machine, MachineEnd.DESTROYED)
        try:
            async with asyncio.timeout(1.0):
                return loss_error(self.id, body.machine, await body.machine.wait_end())
        except TimeoutError:
            return ApiError(
                "internal",
                f"sandbox {self.id} no longer answers and is given up",
                remediation="Create a new sandbox.",
                context={"sandbox": self.id},
                connect=ConnectCode.UNAVAILABLE,
            )
