"""Room for another machine, looked for before it is made.

A machine needs descriptors for as long as it lives, and some more while it is made. When the last
one goes to a machine, nothing can be undone, told or ended any more. So the last ones are kept for
that, and who asks for a machine beyond them is refused first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from mitos.host import descriptors
from mitos.node.refusal import storage_failed

__all__ = ["KEPT", "PER_MACHINE", "Room"]

PER_MACHINE = 16
"""Descriptors that making one takes: 5 or 6 stay with it."""

KEPT = 32
"""Descriptors that no machine gets."""


class Room:
    """Descriptors for machines that are being made."""

    def __init__(self) -> None:
        self._making = 0

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Holds room for machines that the block makes.

        Raises:
            ApiError: `quota_exceeded`, there is none.
        """
        wanted = self._making + count
        if not descriptors.has_room(KEPT + wanted * PER_MACHINE):
            full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise storage_failed(full, "there is no room for another machine")
        self._making += count
        try:
            yield
        finally:
            self._making -= count
