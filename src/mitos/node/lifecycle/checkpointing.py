"""The verbs about a sandbox's own past: checkpoint it, put it back to one."""

from __future__ import annotations

import asyncio
import contextlib

from mitos.node.lifecycle.freeze import Freezer
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.machine.launcher import Launcher
from mitos.node.phase import Event
from mitos.node.quota import Quota
from mitos.node.state import checkpoint
from mitos.node.state.checkpoint import CheckpointRecord, Checkpoints
from mitos.node.state.idempotency import KeyUse

__all__ = ["Checkpointing"]


class Checkpointing:
    """Keeps checkpoints of sandboxes and goes back to them.

    Args:
        freezer: writes snapshots.
        launcher: makes machines from them.
        lifecycle: says whether a sandbox lives on.
        supervisor: replaces machines.
        registry: the living, who share their owner's quota.
        checkpoints: what is kept.
    """

    def __init__(
        self,
        freezer: Freezer,
        launcher: Launcher,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        registry: Registry,
        checkpoints: Checkpoints,
    ) -> None:
        self._freezer = freezer
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._registry = registry
        self._checkpoints = checkpoints

    async def checkpoint(
        self, sandbox: Sandbox, name: str, quota: Quota, key: KeyUse | None = None
    ) -> CheckpointRecord:
        """Keeps a snapshot of a sandbox, which goes on as it was.

        Raises:
            ApiError: `quota_exceeded`, the engine's failure, or the state cannot be written.
        """
        async with self._supervisor.holding(sandbox, Event.CHECKPOINT):
            checkpoint_id, place = self._checkpoints.new_place(sandbox.uid, quota)
            with contextlib.ExitStack() as undo:
                undo.callback(self._checkpoints.discard, checkpoint_id)
                snapshot = await self._freezer.snapshot(sandbox, place)
                self._lifecycle.check(sandbox, Event.CHECKPOINT)
                record = self._checkpoints.add(
                    checkpoint_id,
                    sandbox.uid,
                    name,
                    snapshot,
                    snapshot_format=sandbox.row.snapshot_format,
                    quota=quota,
                    owned={each.uid for each in self._registry.living(sandbox.owner)},
                    key=key,
                )
                undo.pop_all()
            return record

    async def digest(self, sandbox: Sandbox, checkpoint_id: str, snapshot_format: str) -> str:
        """SHA-256 of a checkpoint's files, in hex.

        Raises:
            ApiError: `not_found`, or this server cannot read it.
        """
        snapshot = self._checkpoints.find(sandbox.uid, checkpoint_id, snapshot_format)
        return await asyncio.to_thread(checkpoint.digest, snapshot)

    async def restore(self, sandbox: Sandbox, checkpoint_id: str, snapshot_format: str) -> None:
        """Puts a sandbox back to a checkpoint; it keeps its id, and runs afterwards.

        Calls that are open end with `canceled`. When it fails, the sandbox is as it was.

        Raises:
            ApiError: `not_found`, or the checkpoint cannot be brought up.
        """
        async with self._supervisor.holding(sandbox, Event.RESTORE):
            snapshot = self._checkpoints.find(sandbox.uid, checkpoint_id, snapshot_format)
            running = await self._launcher.launch(snapshot, sandbox.id)
            await self._supervisor.replace_machine(sandbox, Event.RESTORE, running)
