"""One live sandbox: its row, its machine, and what is open on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mitos.agent.answer import unresponsive
from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.agent.stream import UnresponsiveError
from mitos.engine.base import Machine
from mitos.node.clock import Clock
from mitos.node.end import EndReason, ended
from mitos.node.inside.budget import Budget
from mitos.node.machine.running import RunningMachine
from mitos.node.phase import Event, Phase, transition
from mitos.node.refusal import not_running, server_stopping
from mitos.node.state.persist import SandboxRow
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

__all__ = ["Sandbox", "SandboxRecord"]

END_DEADLINE_S = 5.0
"""How long a call whose link broke waits to be told why; the supervisor knows within 1 s."""


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """What the outside may know about a sandbox.

    Attributes:
        fork_time_ms: from the request to a machine that answers.
        deadline_unix: when it will be terminated, unix seconds, or None.
        parent_id: the sandbox it was forked from, or None.
        uid: names this sandbox; an id can be used again, a uid never.
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

    @classmethod
    def of(cls, row: SandboxRow) -> SandboxRecord:
        """What a row says to the outside."""
        return cls(
            id=row.id,
            template_id=row.template_id,
            created_at=row.created_at,
            fork_time_ms=row.fork_time_ms,
            network=row.network,
            phase=row.phase,
            deadline_unix=None if row.deadline is None else int(row.deadline),
            parent_id=row.parent_id,
            uid=row.uid,
        )


class Sandbox:
    """A sandbox while it lives.

    Its machine may change under it: hibernation takes it away, waking and restoring bring another.
    `agent` stays the same through all of it.

    Args:
        row: as it is at the start.
        running: its machine and link, its own from now on; None for one that is hibernated.
        max_streams: slots for exec, run_code and terminals; 0 means no limit.
        budget: what it may do for itself.
        wake: called when a call finds the sandbox hibernated; returns once it runs, or raises.
        clock: dates its last use.
    """

    def __init__(
        self,
        row: SandboxRow,
        *,
        running: RunningMachine | None,
        max_streams: int,
        budget: Budget,
        wake: Callable[[Sandbox], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.row = row
        """As saved. `Lifecycle` is the only one that replaces it."""
        self.running = running
        """Its machine and link; None while it is hibernated."""
        self.budget = budget
        self.agent = AgentClient(self, self.explain_loss)
        self.open_streams = 0
        self.open_calls = 0
        self.last_active = clock.now()
        """When the last runtime call ended, unix seconds; counts only while none is open."""
        self.lock = asyncio.Lock()
        """Held by whoever snapshots, pauses, wakes or replaces the machine."""
        self.paused = contextlib.ExitStack()
        """Undone on resume: what holds only while the machine stands still."""
        self.end_reason: EndReason | None = None
        self.is_left = False
        """True when the server stops and the sandbox goes on without it."""
        self._ended = asyncio.Event()
        self._max_streams = max_streams
        self._wake = wake
        self._clock = clock

    @property
    def awake(self) -> RunningMachine:
        """Its machine and link.

        Preconditions: it is not hibernated; likewise for `machine` and `link`.
        """
        assert self.running is not None
        return self.running

    @property
    def machine(self) -> Machine:
        """Its machine."""
        return self.awake.machine

    @property
    def link(self) -> Link:
        """The link to its machine's agent."""
        return self.awake.link

    @property
    def is_busy(self) -> bool:
        """True while somebody has a stream or a call open on it."""
        return self.open_streams > 0 or self.open_calls > 0

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.row.id

    @property
    def uid(self) -> str:
        """Names this sandbox; an id can be used again, a uid never."""
        return self.row.uid

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.row.owner

    @property
    def template_id(self) -> str:
        """The template it came from, directly or through its parents."""
        return self.row.template_id

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        return self.row.phase

    def record(self) -> SandboxRecord:
        """A reading of the sandbox as it is now."""
        return SandboxRecord.of(self.row)

    def note_use(self) -> None:
        """Says that somebody has just used it."""
        self.last_active = self._clock.now()

    def note_end(self, reason: EndReason) -> None:
        """Says why it ended, to every call that is open."""
        self.end_reason = reason
        self._ended.set()

    def note_left(self) -> None:
        """Says to every call that is open that the server stops."""
        self.is_left = True
        self._ended.set()

    def require_running(self) -> None:
        """Refuses runtime calls where they cannot be served, now or after waking.

        Raises:
            ApiError: with Connect code `failed_precondition` while it is paused; or it has ended.
        """
        if self.is_left or transition(self.phase, Event.CALL) is None:
            raise self.refusal()

    def refusal(self) -> ApiError:
        """The error for what cannot be done in the phase it is in."""
        if self.end_reason is not None:
            return self._ended_error(self.end_reason)
        if self.is_left:
            return server_stopping()
        return not_running(self.id, self.phase.value)

    def observer(self) -> AgentClient | None:
        """Its agent, asked without waking it or counting as use; None unless it runs."""
        return AgentClient(self.link, self.explain_loss) if self.phase is Phase.READY else None

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Link]:
        """Its link for one call; wakes it first if it is hibernated.

        Raises:
            ApiError: it is paused, has ended, or cannot be woken.
        """
        self.open_calls += 1
        try:
            if self.phase is Phase.HIBERNATED:
                await self._wake(self)
            self.require_running()
            yield self.link
        except UnresponsiveError as exc:
            raise unresponsive(exc, self.id) from exc
        finally:
            self.open_calls -= 1
            self.note_use()

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
            self.note_use()

    async def explain_loss(self) -> ApiError:
        """Why the link broke in mid-call."""
        if self.running is not None and not self.running.link.lost.is_set():
            return ApiError(
                "canceled",
                f"sandbox {self.id} was restored to a checkpoint while the call ran",
                context={"sandbox": self.id},
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_DEADLINE_S):
                await self._ended.wait()
        if self.is_left:
            return server_stopping()
        return self._ended_error(self.end_reason or EndReason.UNRESPONSIVE)

    def _ended_error(self, reason: EndReason) -> ApiError:
        return ended(self.id, reason, memory_mib=self.row.spec.resources.memory_mib)
