"""The verbs among forks of one sandbox: take the parent's place, compare files."""

from __future__ import annotations

import contextlib

from mitos.agent.transfer.diff import FileDiff, compare
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.machine.launcher import Launcher
from mitos.node.phase import Event
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.sandbox import SandboxTable
from mitos.wire.errors import ApiError, conflict

__all__ = ["Relatives"]


class Relatives:
    """What sandboxes of one family do with each other.

    Args:
        launcher: gives a running machine another identity.
        lifecycle: says whether a sandbox lives on.
        supervisor: replaces a sandbox by another.
        registry: who has which id.
        table: who was forked from whom.
    """

    def __init__(
        self,
        launcher: Launcher,
        lifecycle: Lifecycle,
        supervisor: Supervisor,
        registry: Registry,
        table: SandboxTable,
    ) -> None:
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._supervisor = supervisor
        self._registry = registry
        self._table = table

    async def promote(self, child: Sandbox, key: KeyUse | None = None) -> None:
        """Gives a child its parent's id; the parent ends. One step for everybody who looks.

        Args:
            child: that takes the place.
            key: the request's idempotency key.

        Raises:
            ApiError: `invalid_input` (409) when it has no parent, is paused, or another sandbox has
                the parent's id.
        """
        named = child.id
        async with self._supervisor.holding(child, Event.PROMOTE):
            parent_id, parent_uid = child.row.parent_id, child.row.parent_uid
            if parent_id is None or child.id != named:
                raise conflict(
                    f"{named} has no parent", "Promote a fork instead.", context={"sandbox": named}
                )
            with self._registry.reserve_place(child.owner, parent_id, parent_uid):
                await self._launcher.rename(child.awake, parent_id)
                try:
                    self._lifecycle.check(child, Event.PROMOTE)
                    await self._supervisor.replace_sandbox(child, parent_id, key)
                except ApiError:
                    with contextlib.suppress(ApiError):  # it may have ended
                        await self._launcher.rename(child.awake, named)
                    raise

    async def diff(self, one: Sandbox, other: Sandbox) -> FileDiff:
        """Which files differ between two relatives: what `other` has that `one` has not.

        Raises:
            ApiError: `invalid_input` when they are not related; one is paused.
        """
        if other.uid not in {relative.uid for relative in self._table.family(one.uid)}:
            raise ApiError(
                "invalid_input",
                f"{one.id} and {other.id} are not forks of one sandbox",
                remediation="Compare two sandboxes of one tree.",
            )
        one.require_running()
        other.require_running()
        return await compare(one.agent, other.agent)
