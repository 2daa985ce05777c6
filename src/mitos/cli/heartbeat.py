"""Signs of life for the service manager, from the event loop itself.

A loop that stands still gives none, so a server that hangs is noticed, ended and started again.
`host.service_manager` knows the words, `daemon` when they are due.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from mitos.host.service_manager import ALIVE, READY, STOPPING, ServiceManager

__all__ = ["Heartbeat", "beating"]

_UNWATCHED_S = 10.0
"""How often the status is told to a manager that does not watch."""

_START_S = 60.0
"""How much more time each sign of life asks for while the server starts: templates take minutes."""


class Heartbeat:
    """What the manager is told, by where the server is in its life."""

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._count: Callable[[], int] | None = None
        self._is_stopping = False

    def ready(self, count_sandboxes: Callable[[], int]) -> None:
        """The server serves; from now on its status is the number of sandboxes."""
        self._count = count_sandboxes
        self._manager.notify(READY, *self._signs())

    def stopping(self) -> None:
        """The server has been told to stop."""
        self._is_stopping = True
        self._manager.notify(STOPPING, *self._signs())

    async def beat(self) -> None:
        """Gives signs of life until cancelled, twice as often as they are asked for."""
        watched_s = self._manager.watchdog_s
        while True:
            self._manager.notify(*self._signs())
            await asyncio.sleep(_UNWATCHED_S if watched_s is None else watched_s / 2)

    def _signs(self) -> list[str]:
        if self._is_stopping:
            return [ALIVE, "STATUS=stopping"]
        if self._count is None:
            return [f"EXTEND_TIMEOUT_USEC={_START_S * 1e6:.0f}", "STATUS=starting"]
        count = self._count()
        return [ALIVE, f"STATUS={count} sandbox{'' if count == 1 else 'es'}"]


@contextlib.asynccontextmanager
async def beating(manager: ServiceManager) -> AsyncIterator[Heartbeat]:
    """Gives signs of life for the time of the block."""
    heartbeat = Heartbeat(manager)
    beat = asyncio.create_task(heartbeat.beat(), name="heartbeat")
    try:
        yield heartbeat
    finally:
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
