"""One owner's part of a node: everything a caller can ask for, and nothing of anybody else's.

`server` calls this and nothing below it. Each method is all or nothing: when it raises, what it had
made is gone. The work is done by the verbs in `lifecycle/`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from types import MappingProxyType

from mitos.agent.client import AgentClient
from mitos.agent.transfer.diff import FileDiff
from mitos.node import vitals
from mitos.node.end import EndReason, unknown_sandbox
from mitos.node.follow import FeedItem, follow
from mitos.node.lifecycle.creation import Origin
from mitos.node.lifecycle.sandbox import Sandbox, SandboxRecord
from mitos.node.parts import Parts
from mitos.node.phase import Phase
from mitos.node.principal import Principal
from mitos.node.refusal import check_timeout
from mitos.node.state.checkpoint import CheckpointRecord
from mitos.node.state.persist import Relative
from mitos.node.template.owned import OwnedTemplates
from mitos.node.vitals import Vitals
from mitos.wire.errors import ApiError

__all__ = ["Tenant"]


class Tenant:
    """An owner's sandboxes and templates.

    Args:
        parts: of the node.
        principal: who the owner is.

    Attributes:
        templates: what sandboxes can be created from.
        settings: the node's folders and limits.
    """

    def __init__(self, parts: Parts, principal: Principal) -> None:
        self._parts = parts
        self.principal = principal
        self.owner = principal.owner
        self.settings = parts.settings
        self.templates = OwnedTemplates(parts.templates, principal.owner)

    # Sandboxes

    async def create(
        self, template_id: str, sandbox_id: str, *, idempotency_key: str | None = None
    ) -> SandboxRecord:
        """Starts a sandbox from a template.

        Raises:
            ApiError: `not_found`, `invalid_input` (409, the id is in use), `quota_exceeded`,
                `internal`.
        """
        async with self._parts.state.keys.use(self.owner, idempotency_key, "fork") as use:
            if use and (replay := self._replay(use.created)):
                return replay[0]
            started = time.perf_counter()
            template = self._parts.templates.find(self.owner, template_id)
            origin = Origin(self.owner, template_id, template.row.network, started)
            sandbox = await self._parts.creation.create(origin, template.snapshot, sandbox_id, use)
            return sandbox.record()

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
        async with self._parts.state.keys.use(self.owner, idempotency_key, "fork") as use:
            if use and (replay := self._replay(use.created)):
                return replay
            source = self._find(source_id)
            children = await self._parts.creation.fork(
                source, child_ids, environment=environment, key=use
            )
            return [child.record() for child in children]

    async def fork_some(
        self, source_id: str, child_ids: Sequence[str]
    ) -> list[SandboxRecord | ApiError]:
        """As `fork`, but a child that does not come up leaves its error and the others stay.

        Raises:
            ApiError: no child could be tried.
        """
        outcomes = await self._parts.creation.fork_some(self._find(source_id), child_ids)
        return [each.record() if isinstance(each, Sandbox) else each for each in outcomes]

    def list_sandboxes(self) -> list[SandboxRecord]:
        """Every living sandbox, oldest first."""
        return [sandbox.record() for sandbox in self._parts.registry.living(self.owner)]

    def get_sandbox(self, sandbox_id: str) -> SandboxRecord:
        """One sandbox.

        Raises:
            ApiError: `not_found`, or `idle_timeout` when its deadline ended it.
        """
        return self._find(sandbox_id).record()

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
        sandbox = self._parts.registry.get(self.owner, sandbox_id)
        if sandbox is None:
            raise unknown_sandbox(sandbox_id)
        doomed = self._parts.registry.descendants(sandbox) if subtree else [sandbox]
        end = self._parts.supervisor.end
        await asyncio.gather(*(end(each, EndReason.TERMINATED) for each in doomed))
        return [each.id for each in doomed]

    def set_timeout(self, sandbox_id: str, timeout_s: int) -> int:
        """Sets or replaces the deadline, now + `timeout_s`; returns it in unix seconds.

        Raises:
            ApiError: `timeout_too_large`, `invalid_input` for zero or less, `not_found`.
        """
        sandbox = self._find(sandbox_id)
        if timeout_s <= 0:
            raise ApiError("invalid_input", "timeout_seconds must be at least 1")
        check_timeout(timeout_s, self.settings.max_timeout_s, sandbox_id)
        return self._parts.lifecycle.set_deadline(sandbox, timeout_s)

    async def pause(self, sandbox_id: str) -> None:
        """Stops every process, and the sandbox's deadline with them. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        await self._parts.suspension.pause(self._find(sandbox_id))

    async def resume(self, sandbox_id: str) -> None:
        """Undoes `pause` or `hibernate`; the deadline goes on from where it stood. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        await self._parts.suspension.resume(self._find(sandbox_id))

    async def hibernate(self, sandbox_id: str) -> None:
        """Writes a sandbox to disk and frees its memory; the next call wakes it. Idempotent.

        Its deadline stands still meanwhile, and it outlives the server.

        Raises:
            ApiError: `not_found`; `invalid_input` (409) while calls are open; the engine's failure.
                The sandbox then goes on as it was.
        """
        await self._parts.suspension.hibernate(self._find(sandbox_id))

    # Relatives

    async def checkpoint(
        self, sandbox_id: str, name: str = "", *, idempotency_key: str | None = None
    ) -> CheckpointRecord:
        """Keeps a snapshot of a sandbox, which goes on as it was.

        Raises:
            ApiError: `not_found`, `quota_exceeded`, or the engine's failure.
        """
        async with self._parts.state.keys.use(self.owner, idempotency_key, "checkpoint") as use:
            sandbox, created = self._find(sandbox_id), (use and use.created) or ()
            for record in self._parts.state.checkpoints.records(sandbox.uid):
                if record.id in created:
                    return record
            quota = self.settings.quota(self.owner)
            return await self._parts.checkpointing.checkpoint(sandbox, name, quota, use)

    async def checkpoint_digest(self, sandbox_id: str, checkpoint_id: str) -> str:
        """SHA-256 of a checkpoint's files, in hex.

        Raises:
            ApiError: `not_found`.
        """
        snapshot_format = self._parts.snapshot_format
        sandbox = self._find(sandbox_id)
        return await self._parts.checkpointing.digest(sandbox, checkpoint_id, snapshot_format)

    def list_checkpoints(self, sandbox_id: str) -> list[CheckpointRecord]:
        """The checkpoints of a sandbox, oldest first.

        Raises:
            ApiError: `not_found`.
        """
        return self._parts.state.checkpoints.records(self._find(sandbox_id).uid)

    def delete_checkpoint(self, sandbox_id: str, checkpoint_id: str) -> None:
        """Removes a checkpoint.

        Raises:
            ApiError: `not_found`.
        """
        self._parts.state.checkpoints.delete(self._find(sandbox_id).uid, checkpoint_id)

    async def restore(self, sandbox_id: str, checkpoint_id: str) -> SandboxRecord:
        """Puts a sandbox back to a checkpoint; it keeps its id, and runs afterwards.

        Calls that are open end with `canceled`. When it fails, the sandbox is as it was.

        Raises:
            ApiError: `not_found`, or the checkpoint cannot be brought up.
        """
        sandbox = self._find(sandbox_id)
        await self._parts.checkpointing.restore(sandbox, checkpoint_id, self._parts.snapshot_format)
        return sandbox.record()

    def family(self, sandbox_id: str) -> list[Relative]:
        """Everybody related to a sandbox by forks, the ended included; oldest first.

        Raises:
            ApiError: `not_found`.
        """
        return self._parts.state.sandboxes.family(self._find(sandbox_id).uid)

    def phase_of(self, relative: Relative) -> Phase | None:
        """The phase of a relative; None when it has ended."""
        sandbox = self._parts.registry.by_uid(relative.uid)
        return None if sandbox is None else sandbox.phase

    async def promote(self, child_id: str, *, idempotency_key: str | None = None) -> SandboxRecord:
        """Gives a child its parent's id; the parent ends. One step for everybody who looks.

        Raises:
            ApiError: `not_found`; `invalid_input` (409) when it has no parent, is paused, or
                another sandbox has the parent's id.
        """
        async with self._parts.state.keys.use(self.owner, idempotency_key, "promote") as use:
            if use and (replay := self._replay(use.created)):
                return replay[0]
            child = self._find(child_id)
            await self._parts.relatives.promote(child, use)
            return child.record()

    async def diff(self, sandbox_id: str, other_id: str) -> FileDiff:
        """Which files differ between two relatives: what `other_id` has that the first has not.

        Raises:
            ApiError: `not_found`; `invalid_input` when they are not related.
        """
        return await self._parts.relatives.diff(self._find(sandbox_id), self._find(other_id))

    def follow(self, cursor: int | None, *, quiet_s: float) -> AsyncGenerator[FeedItem]:
        """What happens to the owner's sandboxes and templates, until the node closes.

        Args:
            cursor: the number of the last event that the reader has; None begins with a listing.
            quiet_s: after how long without an event `Quiet` is yielded.
        """
        return follow(self._parts, self.owner, cursor, quiet_s)

    # Runtime

    def agent(self, sandbox_id: str) -> AgentClient:
        """The agent of a running sandbox.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        sandbox = self._find(sandbox_id)
        sandbox.require_running()
        return sandbox.agent

    def stream(self, sandbox_id: str) -> AbstractContextManager[AgentClient]:
        """The same, plus one of the sandbox's stream slots while the context is open.

        Raises:
            ApiError: also `too_many_streams`.
        """
        return self._find(sandbox_id).stream()

    def vitals(self, sandbox_id: str, interval_s: float) -> AsyncGenerator[Vitals]:
        """Samples of a sandbox as a whole, until it ends or the caller stops.

        Args:
            sandbox_id: a running sandbox.
            interval_s: seconds between two samples; the first comes at once.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        sandbox = self._find(sandbox_id)
        sandbox.require_running()
        return self._watch_vitals(sandbox, interval_s)

    # Inside

    async def _watch_vitals(self, sandbox: Sandbox, interval_s: float) -> AsyncGenerator[Vitals]:
        async with sandbox.session():
            samples = vitals.watch(
                lambda: self.agent(sandbox.id), sandbox.machine, interval_s=interval_s
            )
            async with aclosing(samples):
                async for sample in samples:
                    yield sample

    def _find(self, sandbox_id: str) -> Sandbox:
        return self._parts.registry.find(self.owner, sandbox_id)

    def _replay(self, created: Sequence[str] | None) -> list[SandboxRecord] | None:
        """What an earlier request of the same key made, if all of it still runs."""
        found = [self._parts.registry.get(self.owner, name) for name in created or ()]
        living = [sandbox.record() for sandbox in found if sandbox is not None]
        return living if living and len(living) == len(found) else None
