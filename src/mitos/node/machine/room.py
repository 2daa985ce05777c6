"""Room for another machine, looked for before it is made.

A machine needs descriptors for as long as it lives, and some more while it is made. When the last
one goes to a machine, nothing can be undone, told or ended any more. So the last ones are kept for
that, and who asks for a machine beyond them is refused first.

It needs memory too, as much as what it is a copy of. When the host has none left, its kernel ends
a process of its own choice, perhaps a neighbour's. So a part is kept, and likewise refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from mitos.host import descriptors, memory
from mitos.node.refusal import storage_failed
from mitos.wire.errors import ApiError

__all__ = ["KEPT", "KEPT_BYTES", "MACHINE_BYTES", "STARTS", "Room"]

PER_MACHINE = 12
"""Descriptors that one takes while it is restored; 5 or 6 stay with it."""

PER_START = 6
"""Further ones while its processes are started. Only so many of one request start at once."""

STARTS = 2 * (os.cpu_count() or 1)
"""How many blanks are prepared at the same time for one request."""

KEPT = 32
"""Descriptors that no machine gets."""

KEPT_BYTES = 512 << 20
"""Memory of the host that no machine gets when it is made."""

MACHINE_BYTES = 32 << 20
"""Memory of a machine beside its copy: the engine's own."""


class Room:
    """Descriptors and memory for machines that are being made.

    Args:
        available: memory that the host can spare, in bytes.
    """

    def __init__(self, available: Callable[[], int] = memory.available_bytes) -> None:
        self._available = available
        self._held = 0
        self._held_bytes = 0

    @contextlib.contextmanager
    def taken(self, count: int, copied_bytes: int = 0) -> Iterator[None]:
        """Holds room for machines that the block makes.

        Args:
            count: of machines.
            copied_bytes: memory that each is a copy of.

        Raises:
            ApiError: `quota_exceeded`, there is none.
        """
        wanted = count * PER_MACHINE + min(count, STARTS) * PER_START
        if not descriptors.has_room(KEPT + self._held + wanted):
            full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise storage_failed(full, "there is no room for another machine")
        size = count * (copied_bytes + MACHINE_BYTES)
        free = self._available() - KEPT_BYTES - self._held_bytes
        if size > free:
            raise _no_memory(size, max(free, 0))
        self._held += wanted
        self._held_bytes += size
        try:
            yield
        finally:
            self._held -= wanted
            self._held_bytes -= size


def _no_memory(size: int, free: int) -> ApiError:
    return ApiError(
        "quota_exceeded",
        "there is no memory for another machine",
        cause=f"it takes up to {size >> 20} MiB, and this host has {free >> 20} MiB to spare",
        remediation="End or hibernate sandboxes, or fork into fewer.",
        context={"dimension": "memory", "limit": free},
    )
