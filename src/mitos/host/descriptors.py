"""Whether this process may still open descriptors."""

from __future__ import annotations

import fcntl
import resource
from pathlib import Path

__all__ = ["has_room"]

_OWN = Path("/proc/self/fd")


def has_room(count: int) -> bool:
    """Whether so many more can be open at the same time; False when not even this can be read."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return True
    # A new one gets the lowest number that is free: the last numbers are free unless it is crowded.
    # Counting thousands takes milliseconds.
    if count <= limit and not any(map(_is_open, range(limit - count, limit))):
        return True
    try:
        return count <= limit - len(list(_OWN.iterdir()))
    except OSError:
        return False


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
