"""Timers of one connection, and the deadlines that all protocols share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["DRAIN_DEADLINE_S", "WRITE_STALL_S", "Deadline", "WriteStall"]

DRAIN_DEADLINE_S = 3.0
"""How long the rest of a body is read and dropped after the answer."""

WRITE_STALL_S = 120.0
"""How long a client may take nothing of what it is sent."""


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


class WriteStall:
    """Aborts a connection whose client takes nothing of what it is sent, also while it closes.

    Its protocol starts and stops it where asyncio has it pause and resume writing: from now on at
    the first byte that the kernel does not take, and after the last one.

    Args:
        transport: of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._unsent = 0
        self._due = Deadline(WRITE_STALL_S, self._look)

    def start(self) -> None:
        """Something waits to be sent."""
        self._unsent = self._transport.get_write_buffer_size()
        self._due.start()

    def stop(self) -> None:
        """All is sent, or the connection is gone. Idempotent."""
        self._due.stop()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._unsent:
            self.start()
        else:
            self._transport.abort()
