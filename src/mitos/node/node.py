"""The node: every template and sandbox of one machine, and all that can be done to them.

`server` calls this and nothing below it. Each method is all or nothing: when it raises, what it had
made is gone.

    create, fork:      `node/fork.py` makes the machine, `node/supervisor.py` watches over it
    pause, hibernate:  the machine stands still, or goes to disk (`node/sleep.py`) until it is used
    checkpoint:        a snapshot kept aside (`node/checkpoint.py`), to go back to
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

from mitos.agent.client import AgentClient
from mitos.agent.transfer.diff import FileDiff, compare
from mitos.engine.base import Engine, EngineError
from mitos.host import lock
from mitos.images.store import ImageStore
from mitos.node import checkpoint, vitals
from mitos.node.budget import Budget
from mitos.node.checkpoint import CheckpointRecord, Shelf
from mitos.node.fork import Forker
from mitos.node.idempotency import Keyring
from mitos.node.launch import Launched, destroy, translate
from mitos.node.ledger import EndReason, Kin, Ledger
from mitos.node.pool import Pool
from mitos.node.refusal import (
    busy,
    conflict,
    engine_errors,
    unknown_sandbox,
)
from mitos.node.roster import Roster
from mitos.node.sandbox import Phase, Sandbox, SandboxRecord
from mitos.node.settings import NodeSettings
from mitos.node.sleep import Bed
from mitos.node.supervisor import Supervisor
from mitos.node.template import SnapshotStore
from mitos.node.templates import Templates
from mitos.node.vitals import Vitals
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

__all__ = ["Node"]

_log = logging.getLogger(__name__)


class Node:
    """One machine's sandboxes.

    Args:
        settings: folders and limits.
        engine: owned by the node: started and closed with it.
        images: root filesystems for templates.

    Attributes:
        templates: what sandboxes can be created from; there once it has started.
    """

    def __init__(self, settings: NodeSettings, engine: Engine, images: ImageStore) -> None:
        self.settings = settings
        self.engine = engine
        self._images = images
        self._pool = Pool(engine, settings)
        self._forker = Forker(engine, self._pool, settings)
        self._bed = Bed(settings.home / "hibernated")
        self._undo = contextlib.AsyncExitStack()
        self._ledger: Ledger
        self._keys: Keyring
        self._shelf: Shelf
        self._roster: Roster
        self._supervisor: Supervisor
        self.templates: Templates

    async def start(self) -> None:
        """Opens the state, clears what a crashed predecessor left, starts the pool and the reaper.

        Raises:
            ApiError: the engine cannot run on this machine, or another server uses this home.
        """
        async with contextlib.AsyncExitStack() as undo:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            undo.enter_context(_sole_owner(self.settings.home))
            self._ledger = Ledger(self.settings.home / "state.db", time.time)
            undo.callback(self._ledger.close)
            self._keys = Keyring(self._ledger)
            self._shelf = Shelf(self.settings, self._ledger)
            self._supervisor = Supervisor(
                self.settings,
                self.engine,
                self._ledger,
                self._shelf,
                self._bed,
                self._forker,
                self._pool,
                self._fork_from_inside,
            )
            self._roster = self._supervisor.roster
            _empty(self.settings.scratch)
            undo.callback(shutil.rmtree, self.settings.scratch, ignore_errors=True)
            try:
                await self.engine.start()
            except EngineError as exc:
                raise translate(exc, f"the {self.engine.name} engine cannot run here") from exc
            undo.push_async_callback(self.engine.close)
            if leftovers := self._ledger.end_leftovers():
                _log.warning("%d sandboxes ended with the previous server", len(leftovers))
            self._pool.start()
            undo.push_async_callback(self._pool.close)
            self.templates = Templates(
                SnapshotStore(self.settings, self.engine, self._images),
                self._ledger,
                self._keys,
                self._pool,
                self.settings.default_resources,
            )
            await self.templates.load()
            self._supervisor.start()
            undo.push_async_callback(self._supervisor.close)
            self._undo = undo.pop_all()

    async def close(self) -> None:
        """Terminates every sandbox but the hibernated ones and frees everything. Idempotent."""
        await self._undo.aclose()

    # Sandboxes

    async def create(
        self, template_id: str, sandbox_id: str, *, idempotency_key: str | None = None
    ) -> SandboxRecord:
        """Starts a sandbox from a template.

        Raises:
            ApiError: `not_found`, `invalid_input` (409, the id is in use), `quota_exceeded`,
                `internal`.
        """
        async with self._keys.use(idempotency_key, "fork") as use:
            if use and (replay := self._roster.replay(use.created)):
                return replay[0]
            template = self.templates.find(template_id)
            with self._roster.reserve([sandbox_id]), self._pool.foreground():
                started = time.perf_counter()
                launched = await self._forker.launch(template, sandbox_id)
                record = self._add_sandbox(
                    launched,
                    sandbox_id,
                    template_id=template_id,
                    network=template.record.network,
                    started=started,
                )
            if use:
                use.record([sandbox_id])
            return record

    async def fork(
        self,
        source_id: str,
        child_ids: Sequence[str],
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        idempotency_key: str | None = None,
    ) -> list[SandboxRecord]:
        """Copies a sandbox, all children from one instant; the source goes on as it was.

        Children of a paused or hibernated sandbox run. `environment` is over the source's.

        Raises:
            ApiError: as `create`; no child exists when it is raised.
        """
        async with self._keys.use(idempotency_key, "fork") as use:
            if use and (replay := self._roster.replay(use.created)):
                return replay
            records = await self._fork(self._roster.find(source_id), child_ids, environment)
            if use:
                use.record(list(child_ids))
            return records

    async def fork_some(
        self, source_id: str, child_ids: Sequence[str]
    ) -> list[SandboxRecord | ApiError]:
        """As `fork`, but a child that does not come up leaves its error and the others stay.

        Raises:
            ApiError: no child could be tried.
        """
        source = self._roster.find(source_id)
        with self._roster.reserve(child_ids), self._pool.foreground():
            started = time.perf_counter()
            outcomes = await self._forker.fork_some(source, child_ids)
            return [
                outcome
                if isinstance(outcome, ApiError)
                else self._add_child(outcome, child_id, source, started)
                for outcome, child_id in zip(outcomes, child_ids, strict=True)
            ]

    def list_sandboxes(self) -> list[SandboxRecord]:
        """Every live sandbox, oldest first."""
        return [sandbox.record() for sandbox in self._roster.living()]

    async def usages(self) -> list[vitals.SandboxUsage]:
        """What each live sandbox costs; one that ends meanwhile is left out."""
        found = await asyncio.gather(*map(vitals.measure, self._roster.living()))
        return [usage for usage in found if usage is not None]

    def get_sandbox(self, sandbox_id: str) -> SandboxRecord:
        """One sandbox.

        Raises:
            ApiError: `not_found`, or `idle_timeout` when its deadline ended it.
        """
        return self._roster.find(sandbox_id).record()

    def on_end(self, sandbox_id: str, callback: Callable[[], None]) -> None:
        """Calls back once when the sandbox ends or gives its id up, for whatever reason.

        Raises:
            ApiError: `not_found`.
        """
        self._roster.find(sandbox_id).on_end.append(callback)

    async def terminate(self, sandbox_id: str, *, subtree: bool = False) -> list[str]:
        """Ends a sandbox; its id is free at once.

        Args:
            sandbox_id: the sandbox.
            subtree: also ends every living sandbox that descends from it.

        Returns:
            The ids that were ended.

        Raises:
            ApiError: `not_found`, also for one that ended already.
        """
        sandbox = self._roster.get(sandbox_id)
        if sandbox is None:
            raise unknown_sandbox(sandbox_id)
        doomed = self._roster.descendants(sandbox) if subtree else [sandbox]
        await asyncio.gather(*(self._supervisor.end(each, EndReason.TERMINATED) for each in doomed))
        return [each.id for each in doomed]

    def set_timeout(self, sandbox_id: str, timeout_s: int) -> int:
        """Sets or replaces the deadline, now + `timeout_s`; returns it in unix seconds.

        Raises:
            ApiError: `timeout_too_large`, `invalid_input` for zero or less, `not_found`.
        """
        sandbox = self._roster.find(sandbox_id)
        if timeout_s <= 0:
            raise ApiError("invalid_input", "timeout_seconds must be at least 1")
        check_timeout(timeout_s, self.settings.max_timeout_s, sandbox_id)
        deadline = time.time() + timeout_s
        sandbox.deadline = deadline
        if sandbox.phase in (Phase.PAUSED, Phase.HIBERNATED):
            sandbox.remaining_s = timeout_s
            self._supervisor.save_sleeper(sandbox)
        else:
            self._roster.start_deadline(sandbox)
        return int(deadline)

    async def pause(self, sandbox_id: str) -> None:
        """Stops every process, and the sandbox's deadline with them. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        sandbox = self._roster.find(sandbox_id)
        async with sandbox.lock:
            await self._supervisor.wake(sandbox)
            if sandbox.phase is not Phase.READY:
                return
            async with self._forker.still(sandbox):
                with engine_errors(f"sandbox {sandbox_id} could not be paused"):
                    await self.engine.pause(sandbox.machine)
            sandbox.phase = Phase.PAUSED
            sandbox.paused.enter_context(sandbox.link.unwatched())
            self._roster.stop_deadline(sandbox)

    async def resume(self, sandbox_id: str) -> None:
        """Undoes `pause` or `hibernate`; the deadline goes on from where it stood. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        sandbox = self._roster.find(sandbox_id)
        async with sandbox.lock:
            await self._supervisor.wake(sandbox)
            sandbox.last_active = time.time()
            if sandbox.phase is not Phase.PAUSED:
                return
            with engine_errors(f"sandbox {sandbox_id} could not be resumed"):
                await self.engine.resume(sandbox.machine)
            sandbox.paused.close()
            sandbox.phase = Phase.READY
            self._roster.start_deadline(sandbox)

    async def hibernate(self, sandbox_id: str) -> None:
        """Writes a sandbox to disk and frees its memory; the next call wakes it. Idempotent.

        Its deadline stands still meanwhile, and it outlives the server.

        Raises:
            ApiError: `not_found`; `invalid_input` (409) while calls are open; the engine's failure.
                The sandbox then goes on as it was.
        """
        sandbox = self._roster.find(sandbox_id)
        async with sandbox.lock:
            if sandbox.phase is Phase.HIBERNATED:
                return
            if sandbox.is_busy:
                raise busy(sandbox_id, "hibernated")
            before, directory = sandbox.phase, self._bed.place(sandbox.uid)
            async with contextlib.AsyncExitStack() as undo:
                undo.callback(self._bed.clear, sandbox.uid)
                snapshot = await self._forker.snapshot(sandbox, directory)
                self._roster.check_alive(sandbox)
                if sandbox.is_busy:
                    raise busy(sandbox_id, "hibernated")
                sandbox.snapshot = snapshot
                sandbox.phase = Phase.HIBERNATED
                if before is Phase.READY:
                    self._roster.stop_deadline(sandbox)
                self._supervisor.save_sleeper(sandbox)
                undo.pop_all()
            sandbox.paused.close()
            await self._supervisor.take_machine(sandbox)

    # Relatives

    async def checkpoint(self, sandbox_id: str, name: str = "") -> CheckpointRecord:
        """Keeps a snapshot of a sandbox, which goes on as it was.

        Raises:
            ApiError: `not_found`, `quota_exceeded`, or the engine's failure.
        """
        sandbox = self._roster.find(sandbox_id)
        async with sandbox.lock:
            await self._supervisor.wake(sandbox)
            checkpoint_id, directory = self._shelf.new_place(sandbox.uid)
            async with contextlib.AsyncExitStack() as undo:
                undo.callback(self._shelf.discard, checkpoint_id)
                snapshot = await self._forker.snapshot(sandbox, directory)
                self._roster.check_alive(sandbox)
                record = self._shelf.add(
                    checkpoint_id, sandbox.uid, name, snapshot, self.engine.snapshot_format
                )
                undo.pop_all()
            return record

    async def checkpoint_digest(self, sandbox_id: str, checkpoint_id: str) -> str:
        """SHA-256 of a checkpoint's files, in hex.

        Raises:
            ApiError: `not_found`.
        """
        uid, snapshot_format = self._roster.find(sandbox_id).uid, self.engine.snapshot_format
        snapshot = self._shelf.find(uid, checkpoint_id, snapshot_format)
        return await asyncio.to_thread(checkpoint.digest, snapshot)

    def list_checkpoints(self, sandbox_id: str) -> list[CheckpointRecord]:
        """The checkpoints of a sandbox, oldest first.

        Raises:
            ApiError: `not_found`.
        """
        return self._shelf.list(self._roster.find(sandbox_id).uid)

    def delete_checkpoint(self, sandbox_id: str, checkpoint_id: str) -> None:
        """Removes a checkpoint.

        Raises:
            ApiError: `not_found`.
        """
        self._shelf.delete(self._roster.find(sandbox_id).uid, checkpoint_id)

    async def restore(self, sandbox_id: str, checkpoint_id: str) -> SandboxRecord:
        """Puts a sandbox back to a checkpoint; it keeps its id, and runs afterwards.

        Calls that are open end with `canceled`. When it fails, the sandbox is as it was.

        Raises:
            ApiError: `not_found`, or the checkpoint cannot be brought up.
        """
        sandbox = self._roster.find(sandbox_id)
        snapshot_format = self.engine.snapshot_format
        async with sandbox.lock:
            snapshot = self._shelf.find(sandbox.uid, checkpoint_id, snapshot_format)
            with self._pool.foreground():
                launched = await self._forker.wake(snapshot, sandbox_id)
            sandbox.paused.close()
            old = await self._supervisor.give_machine(sandbox, launched)
            if old is not None:
                await destroy(self.engine, old)
            return sandbox.record()

    def family(self, sandbox_id: str) -> list[Kin]:
        """Everybody related to a sandbox by forks, the ended included; oldest first.

        Raises:
            ApiError: `not_found`.
        """
        return self._ledger.family(self._roster.find(sandbox_id).uid)

    def phase_of(self, kin: Kin) -> Phase | None:
        """The phase of a relative; None when it has ended."""
        sandbox = self._roster.get(kin.id)
        return sandbox.phase if sandbox is not None and sandbox.uid == kin.uid else None

    async def promote(self, child_id: str) -> SandboxRecord:
        """Gives a child its parent's id; the parent ends. One step for everybody who looks.

        Raises:
            ApiError: `not_found`; `invalid_input` (409) when it has no parent, is paused, or
                another sandbox has the parent's id.
        """
        child = self._roster.find(child_id)
        async with child.lock:
            await self._supervisor.wake(child)
            parent_id, kin = child.parent_id, {k.uid: k for k in self.family(child_id)}
            if parent_id is None or child.id != child_id:
                raise conflict(child_id, f"{child_id} has no parent", "Promote a fork instead.")
            if child.phase is not Phase.READY:
                raise conflict(child_id, f"{child_id} is paused", "Resume it first.")
            parent_uid = kin[child.uid].parent
            with self._roster.reserve_place(parent_id, parent_uid):
                await self._forker.rename(child.agent, parent_id)
                self._roster.check_alive(child)
                parent = self._roster.move(child, parent_id)
            if parent is not None:
                await self._supervisor.finish_end(parent, EndReason.TERMINATED)
            return child.record()

    async def diff(self, sandbox_id: str, other_id: str) -> FileDiff:
        """Which files differ between two relatives: what `other_id` has that the first has not.

        Raises:
            ApiError: `not_found`; `invalid_input` when they are not related.
        """
        one, other = self._roster.find(sandbox_id), self._roster.find(other_id)
        if other.uid not in {kin.uid for kin in self.family(sandbox_id)}:
            raise ApiError(
                "invalid_input",
                f"{sandbox_id} and {other_id} are not forks of one sandbox",
                remediation="Compare two sandboxes of one tree.",
            )
        one.require_running()
        other.require_running()
        return await compare(one.agent, other.agent)

    # Runtime

    def agent(self, sandbox_id: str) -> AgentClient:
        """The agent of a running sandbox.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        sandbox = self._roster.find(sandbox_id)
        sandbox.require_running()
        return sandbox.agent

    async def count_processes(self, sandbox_id: str) -> int | None:
        """The processes of a sandbox, None unless it runs; never wakes it and is no use of it.

        Raises:
            ApiError: it ended, or does not answer.
        """
        observer = self._roster.find(sandbox_id).observer()
        return None if observer is None else await observer.count_processes()

    def stream(self, sandbox_id: str) -> AbstractContextManager[AgentClient]:
        """The same, plus one of the sandbox's stream slots while the context is open.

        Raises:
            ApiError: also `too_many_streams`.
        """
        return self._roster.find(sandbox_id).stream()

    def vitals(self, sandbox_id: str, interval_s: float) -> AsyncGenerator[vitals.Vitals]:
        """Samples of a sandbox as a whole, until it ends or the caller stops.

        Args:
            sandbox_id: a running sandbox.
            interval_s: seconds between two samples; the first comes at once.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        sandbox = self._roster.find(sandbox_id)
        sandbox.require_running()
        return self._watch_vitals(sandbox, interval_s)

    # Inside

    async def _fork(
        self,
        source: Sandbox,
        child_ids: Sequence[str],
        environment: Mapping[str, str] = MappingProxyType({}),
        budget: Budget | None = None,
    ) -> list[SandboxRecord]:
        with self._roster.reserve(child_ids), self._pool.foreground():
            started = time.perf_counter()
            launched = await self._forker.fork(source, child_ids, environment)
            return [
                self._add_child(child, child_id, source, started, budget)
                for child, child_id in zip(launched, child_ids, strict=True)
            ]

    async def _watch_vitals(self, sandbox: Sandbox, interval_s: float) -> AsyncGenerator[Vitals]:
        async with sandbox.session():
            samples = vitals.watch(
                lambda: self.agent(sandbox.id), sandbox.machine, interval_s=interval_s
            )
            async with aclosing(samples):
                async for sample in samples:
                    yield sample

    def _add_child(
        self,
        launched: Launched,
        child_id: str,
        source: Sandbox,
        started: float,
        budget: Budget | None = None,
    ) -> SandboxRecord:
        return self._add_sandbox(
            launched,
            child_id,
            template_id=source.template_id,
            network=source.network,
            started=started,
            parent=source,
            budget=budget,
        )

    def _add_sandbox(
        self,
        launched: Launched,
        sandbox_id: str,
        *,
        template_id: str,
        network: NetworkPosture,
        started: float,
        parent: Sandbox | None = None,
        budget: Budget | None = None,
    ) -> SandboxRecord:
        record = SandboxRecord(
            id=sandbox_id,
            template_id=template_id,
            created_at=_now(),
            fork_time_ms=_elapsed_ms(started),
            network=network,
            phase=Phase.READY,
            deadline_unix=None,
            parent_id=parent.id if parent else None,
            uid=secrets.token_hex(8),
        )
        sandbox = self._supervisor.add(record, launched, budget)
        parent_uid = parent.uid if parent else None
        self._ledger.add_kin(record.uid, sandbox_id, parent=parent_uid, template_id=template_id)
        self._supervisor.take_over(sandbox, launched)
        self._roster.start_deadline(sandbox)
        return record

    async def _fork_from_inside(self, source: Sandbox, child_ids: Sequence[str]) -> None:
        """Children that a sandbox asks for itself: within its budget, and not beyond its deadline.

        Raises:
            ApiError: as `fork`, or `budget_exhausted`.
        """
        source.budget.take_forks(len(child_ids))
        try:
            await self._fork(source, child_ids, budget=source.budget)
        except BaseException:
            source.budget.give_back(len(child_ids))
            raise
        for child in filter(None, map(self._roster.get, child_ids)):
            child.deadline = source.deadline
            self._roster.start_deadline(child)


def check_timeout(requested_s: int, ceiling_s: int, sandbox_id: str) -> None:
    """Refuses a timeout over the server's ceiling; 0 means no ceiling.

    Raises:
        ApiError: `timeout_too_large`; never clamped.
    """
    if 0 < ceiling_s < requested_s:
        raise ApiError(
            "timeout_too_large",
            f"a timeout of {requested_s} s is over the ceiling of {ceiling_s} s",
            context={
                "sandbox": sandbox_id,
                "requested_s": requested_s,
                "max_timeout_s": ceiling_s,
            },
        )


@contextlib.contextmanager
def _sole_owner(home: Path) -> Iterator[None]:
    """Two servers with one home would remove each other's sandboxes: the second is refused."""
    try:
        with lock.held(home / "server.lock"):
            yield
    except lock.LockedError as exc:
        raise ApiError(
            "internal",
            f"another server uses the home {home}",
            cause=str(exc),
            remediation="Stop that server, or give this one a home of its own with --home.",
            status=503,
        ) from exc


def _empty(directory: Path) -> None:
    """Makes the folder, or removes what is in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _elapsed_ms(since: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`; never 0, as the wire promises."""
    return max((time.perf_counter() - since) * 1000, 0.001)
