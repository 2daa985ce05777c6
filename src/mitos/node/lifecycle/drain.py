"""Draining a node: it takes no new work, serves what there is, and says what is left.

Nothing is left once no call is open, or, where sandboxes are hibernated, once all sleep. A call
wakes a sandbox then as ever; it is put to sleep again afterwards.
"""

from __future__ import annotations

import asyncio
import time

from mitos.node.intake import Intake, Kind, Left
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.suspension import HIBERNATED_AT_ONCE, Suspension
from mitos.wire.errors import ApiError

__all__ = ["Drain"]

LOOK_S = 0.5
RETRY_S = 10.0
"""After how long a sandbox that could not be hibernated is tried again: it is written whole."""


class Drain:
    """Begins and ends draining.

    Args:
        intake: where new work comes in.
        registry: the living sandboxes.
        suspension: hibernates them.
    """

    def __init__(self, intake: Intake, registry: Registry, suspension: Suspension) -> None:
        self._intake = intake
        self._registry = registry
        self._suspension = suspension
        self._task: asyncio.Task[None] | None = None
        self._failures: dict[str, tuple[str, float]] = {}

    @property
    def is_on(self) -> bool:
        """True while the node is drained."""
        return not self._intake.is_open

    @property
    def hibernates(self) -> bool:
        """True while every sandbox is hibernated that nobody uses."""
        return self._task is not None

    def begin(self, *, hibernates: bool) -> None:
        """Takes no new work from now on. Idempotent; may be asked to hibernate later."""
        self._intake.is_open = False
        if hibernates and self._task is None:
            self._failures.clear()
            self._task = asyncio.create_task(self._hibernate(), name="drain")

    async def end(self) -> None:
        """Takes new work again. Idempotent."""
        self._intake.is_open = True
        await self.close()

    async def close(self) -> None:
        """Hibernates no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def left(self) -> list[Left]:
        """What is not done with; empty when the server can be stopped."""
        found = self._intake.under_way()
        for sandbox in self._registry.living():
            if why := self._why(sandbox):
                found.append(Left(Kind.SANDBOX, sandbox.id, why))
        return found

    def _why(self, sandbox: Sandbox) -> str:
        """Why a sandbox is waited for; empty when it is not."""
        if sandbox.is_busy:
            count = max(sandbox.open_calls, sandbox.open_streams)
            return f"has {count} open calls" if count > 1 else "has an open call"
        if self.hibernates and sandbox.running is not None:
            why, _ = self._failures.get(sandbox.uid, ("", 0.0))
            return f"cannot be hibernated: {why}" if why else "is being hibernated"
        return ""

    async def _hibernate(self) -> None:
        slots = asyncio.Semaphore(HIBERNATED_AT_ONCE)

        async def hibernate(sandbox: Sandbox) -> None:
            async with slots:
                await self._put_to_sleep(sandbox)

        while True:
            await asyncio.gather(*map(hibernate, self._registry.living()))
            await asyncio.sleep(LOOK_S)

    async def _put_to_sleep(self, sandbox: Sandbox) -> None:
        _, tried_at = self._failures.get(sandbox.uid, ("", float("-inf")))
        if sandbox.running is None or sandbox.is_busy or time.monotonic() < tried_at + RETRY_S:
            return
        try:
            await self._suspension.hibernate(sandbox)
        except ApiError as exc:
            if not sandbox.is_busy:
                self._failures[sandbox.uid] = exc.cause or exc.message, time.monotonic()
        else:
            self._failures.pop(sandbox.uid, None)
