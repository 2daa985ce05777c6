"""Memory of the host that runs out: the sandbox that grew most ends, and no other.

A sandbox may grow up to its limit, and the limits of all together may be more than the host has.
When its last memory goes, the host's kernel ends a process of its own choice, perhaps that of a
neighbour that has not grown at all. So the host's memory is looked at a few times a second, and
before it is used up the one that took most of it, since it was made, is ended with its own reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mitos.engine.base import EngineError
from mitos.host import memory
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.sandbox import Sandbox

__all__ = ["LOW_BYTES", "Pressure"]

_log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often the host's memory is looked at."""

LOW_BYTES = 256 << 20
"""Below this much memory of the host, the sandbox that grew most ends."""

GROWN_BYTES = 16 << 20
"""A sandbox that grew by less has no part in it: something else on the host took the memory."""

SETTLE_S = 1.0
"""How long an end may take to give its memory back before another is looked for."""


class Pressure:
    """Looks at the host's memory.

    Args:
        registry: the living.
        end: ends a sandbox.
        available: memory that the host can spare, in bytes.
        sleep: waits between two looks.
    """

    def __init__(
        self,
        registry: Registry,
        end: Callable[[Sandbox], Awaitable[None]],
        *,
        available: Callable[[], int] = memory.available_bytes,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._end = end
        self._available = available
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._has_told = False

    def start(self) -> None:
        """Starts looking."""
        self._task = asyncio.create_task(self._run(), name="memory-pressure")

    async def close(self) -> None:
        """Stops looking. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._sleep(LOOK_S)
            try:
                if self._available() < LOW_BYTES and await self._relieve():
                    await self._sleep(SETTLE_S)
            except Exception:  # noqa: BLE001  the edge of the task: the next look may be right
                _log.exception("the host's memory could not be looked after")

    async def _relieve(self) -> bool:
        """Ends the sandbox that grew most; False when none has grown."""
        running = [each for each in self._registry.living() if each.running is not None]
        if not running:
            return False
        grown = await asyncio.gather(*map(_growth, running))
        most = max(grown)
        if most < GROWN_BYTES:
            if not self._has_told:
                _log.warning("the host has no memory left, and no sandbox has taken it")
                self._has_told = True
            return False
        self._has_told = False
        greediest = running[grown.index(most)]
        _log.warning(
            "the host has no memory left: sandbox %s, which took %d MiB, is ended",
            greediest.id,
            most >> 20,
        )
        await self._end(greediest)
        return True


async def _growth(sandbox: Sandbox) -> int:
    """Memory that a sandbox took since its machine was made, in bytes."""
    running = sandbox.running
    if running is None:
        return 0
    try:
        return (await running.machine.usage()).memory_bytes - running.copied_bytes
    except EngineError:
        return 0  # it has just ended
