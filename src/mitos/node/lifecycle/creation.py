"""The verbs that make sandboxes: create one from a template, fork a running one.

ids are held -> machines come up -> rows are saved in one step -> the machines are watched over
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

from mitos.engine.base import Snapshot
from mitos.node.inside.budget import Budget
from mitos.node.inside.egress import proxy_environment
from mitos.node.intake import Intake, Kind
from mitos.node.lifecycle.freeze import Freezer
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.machine.launcher import Copies, Launcher
from mitos.node.machine.running import RunningMachine
from mitos.node.phase import Event, Phase
from mitos.node.refusal import engine_errors
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import SandboxRow
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

__all__ = ["Creation", "Origin"]

_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Origin:
    """What new sandboxes have from where they come from.

    Attributes:
        started: when they were asked for, a reading of `time.perf_counter`.
        parent: the sandbox they are forks of, or None.
        budget: that they share; None gives each one of its own.
    """

    owner: str
    template_id: str
    network: NetworkPosture
    started: float
    parent: Sandbox | None = None
    budget: Budget | None = None

    @classmethod
    def fork_of(cls, source: Sandbox, budget: Budget | None = None) -> Origin:
        """That of a sandbox's children, asked for now."""
        return cls(
            owner=source.owner,
            template_id=source.template_id,
            network=source.row.network,
            started=time.perf_counter(),
            parent=source,
            budget=budget,
        )


class Creation:
    """Makes sandboxes.

    Args:
        launcher: makes their machines.
        freezer: writes the source of a fork.
        lifecycle: begins them.
        supervisor: watches over them afterwards.
        registry: holds their ids meanwhile.
        state: hibernated sources, and what families have used up.
        intake: whether anything is made.
        snapshot_format: names what can read the engine's snapshots.
        guest_forks: that a sandbox, with those it made, may make from inside.
    """

    def __init__(
        self,
        launcher: Launcher,
        freezer: Freezer,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        registry: Registry,
        state: State,
        intake: Intake,
        *,
        snapshot_format: str,
        guest_forks: int,
    ) -> None:
        self._launcher = launcher
        self._freezer = freezer
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._registry = registry
        self._state = state
        self._intake = intake
        self._snapshot_format = snapshot_format
        self._guest_forks = guest_forks

    async def create(
        self, origin: Origin, snapshot: Snapshot, sandbox_id: str, key: KeyUse | None
    ) -> Sandbox:
        """Starts a sandbox from a template's snapshot.

        Raises:
            ApiError: `invalid_input` (409, the id is in use), `quota_exceeded`, it did not come up,
                the node is drained, or the state cannot be written. Nothing of it is left.
        """
        with self._reserved(origin.owner, [sandbox_id]):
            environment = proxy_environment(origin.network)
            running = await self._launcher.launch(snapshot, sandbox_id, environment)
            (sandbox,) = await self._begin(origin, {sandbox_id: running}, key)
            return sandbox

    async def fork(
        self,
        source: Sandbox,
        child_ids: Sequence[str],
        *,
        environment: Mapping[str, str] = _NO_VARIABLES,
        key: KeyUse | None = None,
        budget: Budget | None = None,
    ) -> list[Sandbox]:
        """Copies a sandbox, all children from one instant; the source goes on as it was.

        Args:
            source: also one that is paused or hibernated; the children run.
            child_ids: one for each child.
            environment: variables over the source's.
            key: the request's idempotency key.
            budget: for children that the source made itself: its own.

        Raises:
            ApiError: as `create`; no child is left.
        """
        origin = Origin.fork_of(source, budget)
        with self._reserved(source.owner, child_ids):
            async with self._copies(source, len(child_ids)) as copies:
                machines = await copies.make_all(source.id, child_ids, environment)
            return await self._begin(origin, dict(zip(child_ids, machines, strict=True)), key)

    async def fork_some(
        self, source: Sandbox, child_ids: Sequence[str]
    ) -> list[Sandbox | ApiError]:
        """As `fork`, but a child that does not come up leaves its error and the others stay.

        Raises:
            ApiError: no child could be tried, or the state cannot be written.
        """
        origin = Origin.fork_of(source)
        with self._reserved(source.owner, child_ids):
            async with self._copies(source, len(child_ids)) as copies:
                outcomes = await copies.make_some(source.id, child_ids)
            machines = {
                child_id: outcome
                for child_id, outcome in zip(child_ids, outcomes, strict=True)
                if isinstance(outcome, RunningMachine)
            }
            made = iter(await self._begin(origin, machines, None))
            return [
                outcome if isinstance(outcome, ApiError) else next(made) for outcome in outcomes
            ]

    async def fork_from_inside(self, source: Sandbox, child_ids: Sequence[str]) -> None:
        """Children that a sandbox asks for itself: within its budget, and not beyond its deadline.

        Raises:
            ApiError: as `fork`, or `budget_exhausted`.
        """
        budget, count = source.budget, len(child_ids)
        budget.take_forks(count)
        try:
            self._state.sandboxes.save_forks_used(budget.id, budget.forks_used)
            await self.fork(source, child_ids, budget=budget)
        except BaseException:
            budget.give_back(count)
            with contextlib.suppress(ApiError):  # too few forks are left until the next one is
                self._state.sandboxes.save_forks_used(budget.id, budget.forks_used)
            raise

    def budget(self, budget_id: str) -> Budget:
        """The budget of a family that an earlier server knew, or a new one."""
        return Budget(budget_id, self._guest_forks, self._state.sandboxes.forks_used(budget_id))

    @contextlib.contextmanager
    def _reserved(self, owner: str, sandbox_ids: Sequence[str]) -> Iterator[None]:
        with (
            self._intake.taking(Kind.SANDBOX, sandbox_ids),
            self._registry.reserve(owner, sandbox_ids),
        ):
            yield

    @contextlib.asynccontextmanager
    async def _copies(self, source: Sandbox, count: int) -> AsyncIterator[Copies]:
        async with self._supervisor.holding(source, Event.FORK):
            take = functools.partial(self._take_snapshot, source)
            size = await self._size_bytes(source)
            async with self._launcher.copies(source.row.spec, count, size, take) as copies:
                yield copies

    async def _size_bytes(self, source: Sandbox) -> int:
        """Memory that a copy of a sandbox takes."""
        if source.phase is Phase.HIBERNATED:
            return self._state.hibernations.snapshot(source.row).size_bytes()
        with engine_errors(f"sandbox {source.id} could not be measured"):
            return (await source.machine.usage()).memory_bytes
        raise AssertionError("unreachable")

    async def _take_snapshot(self, source: Sandbox, directory: Path) -> Snapshot:
        if source.phase is Phase.HIBERNATED:
            return self._state.hibernations.snapshot(source.row)
        return await self._freezer.snapshot(source, directory)

    async def _begin(
        self, origin: Origin, machines: Mapping[str, RunningMachine], key: KeyUse | None
    ) -> list[Sandbox]:
        sandboxes = [
            self._sandbox(origin, sandbox_id, running) for sandbox_id, running in machines.items()
        ]
        try:
            self._lifecycle.begin(sandboxes, key)
        except BaseException:
            await asyncio.gather(*map(self._launcher.destroy, machines.values()))
            raise
        for sandbox in sandboxes:
            self._supervisor.attach(sandbox)
        return sandboxes

    def _sandbox(self, origin: Origin, sandbox_id: str, running: RunningMachine) -> Sandbox:
        uid, parent = secrets.token_hex(8), origin.parent
        budget = origin.budget or Budget(uid, self._guest_forks)
        row = SandboxRow(
            uid=uid,
            owner=origin.owner,
            id=sandbox_id,
            template_id=origin.template_id,
            parent_uid=parent.uid if parent else None,
            parent_id=parent.id if parent else None,
            created_at=datetime.now(timezone.utc),
            fork_time_ms=_elapsed_ms(origin.started),
            network=origin.network,
            phase=Phase.READY,
            spec=running.machine.spec,
            snapshot_format=self._snapshot_format,
            machine_id=running.machine.id,
            copied_bytes=running.copied_bytes,
            # A child that the parent made itself must not outlive it.
            deadline=parent.row.deadline if parent and origin.budget else None,
            remaining_s=None,
            budget_id=budget.id,
        )
        return self._supervisor.new_sandbox(row, running, budget)


def _elapsed_ms(since: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`; never 0, as the wire promises."""
    return max((time.perf_counter() - since) * 1000, 0.001)
