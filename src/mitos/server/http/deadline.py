"""A timer that one connection starts and stops, and the deadline that both protocols share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["DRAIN_DEADLINE_S", "Deadline"]

DRAIN_DEADLINE_S = 3.0
"""How long the rest of a body is read and dropped after the answer."""


class Deadline:
    """Runs an action unless it is stopped in time.

    Args:
        seconds: how long that is.
        action: what to do then.
    """

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self._seconds = seconds
        self._action = action
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts it; one that runs goes on as it was."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._pass)

    def stop(self) -> None:
        """Stops it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass(self) -> None:
        self._timer = None
        self._action()
