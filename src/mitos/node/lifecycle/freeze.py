"""Holding a sandbox still, and writing its machine down: for pauses, forks and checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from mitos.agent.answer import unresponsive
from mitos.agent.stream import LinkLostError, UnresponsiveError
from mitos.engine.base import Engine, Snapshot
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.phase import Phase
from mitos.node.refusal import engine_errors
from mitos.wire.errors import ApiError, conflict

__all__ = ["Freezer"]


class Freezer:
    """Freezes agents and snapshots machines.

    Args:
        engine: writes snapshots.
        deadline_s: how long a running agent may take to hold still.
    """

    def __init__(self, engine: Engine, deadline_s: float) -> None:
        self._engine = engine
        self._deadline_s = deadline_s

    @contextlib.asynccontextmanager
    async def frozen(self, sandbox: Sandbox) -> AsyncIterator[None]:
        """Holds a running sandbox's agent at a frame boundary.

        Raises:
            ApiError: it does not hold still or does not answer, or has ended.
        """
        try:
            async with sandbox.link.frozen(self._deadline_s):
                yield
        except TimeoutError:
            raise ApiError(
                "internal",
                f"sandbox {sandbox.id} did not hold still for a snapshot",
                remediation="The sandbox is overloaded; try again, or give it more CPU.",
                context={"sandbox": sandbox.id},
            ) from None
        except UnresponsiveError as exc:
            raise unresponsive(exc, sandbox.id) from exc
        except LinkLostError as exc:
            raise await sandbox.explain_loss() from exc

    async def snapshot(self, sandbox: Sandbox, directory: Path) -> Snapshot:
        """Writes the sandbox's machine into the directory; it goes on, or stays paused.

        A paused one is written as it stands: its agent was at a frame boundary when it was paused.

        Preconditions: the caller holds `sandbox.lock`, and the sandbox has a machine.

        Raises:
            ApiError: it does not hold still, has ended, or the disk is full. The directory is gone.
        """
        if sandbox.machine.snapshot_format != self._engine.snapshot_format:
            raise conflict(
                f"sandbox {sandbox.id} runs on an earlier release of the engine",
                "It can be used, and not be copied: its snapshots could not be read. Create a new"
                " sandbox for forks, checkpoints and hibernation.",
                context={"sandbox": sandbox.id},
            )
        with engine_errors(f"sandbox {sandbox.id} could not be snapshotted"):
            if sandbox.phase is Phase.PAUSED:
                return await self._engine.checkpoint(sandbox.machine, directory)
            async with self.frozen(sandbox):
                return await self._engine.checkpoint(sandbox.machine, directory)
        raise AssertionError("unreachable")
