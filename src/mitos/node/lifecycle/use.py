"""When sandboxes were used last, written every few seconds: an idle clock outlives its server."""

from __future__ import annotations

import asyncio
import logging

from mitos.node.clock import Clock
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.state.sandbox import SandboxTable
from mitos.wire.errors import ApiError

__all__ = ["WRITE_S", "UseLog"]

_log = logging.getLogger(__name__)

WRITE_S = 5.0
"""How often it is written. A killed server forgets the uses of so long, so they are dated later."""


class UseLog:
    """Writes down the last uses of the living sandboxes, where they have changed.

    Args:
        registry: the living.
        table: where it is written.
        clock: dates the use of those that are busy.
    """

    def __init__(self, registry: Registry, table: SandboxTable, clock: Clock) -> None:
        self._registry = registry
        self._table = table
        self._clock = clock
        self._written: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts writing."""
        self._task = asyncio.create_task(self._run(), name="use-log")

    async def close(self) -> None:
        """Writes once more, and stops. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._write(later_s=0.0)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            self._write(later_s=WRITE_S)

    def _write(self, *, later_s: float) -> None:
        """Writes what has changed.

        Args:
            later_s: until it is written again.
        """
        uses = {each.uid: self._last_use(each) + later_s for each in self._registry.living()}
        changed = {uid: at for uid, at in uses.items() if self._written.get(uid) != at}
        if not changed:
            return
        try:
            self._table.save_uses(changed)
        except ApiError as exc:
            _log.debug("the last uses could not be written: %s", exc.cause)
        else:
            self._written = uses

    def _last_use(self, sandbox: Sandbox) -> float:
        return self._clock.now() if sandbox.is_busy else sandbox.last_active
