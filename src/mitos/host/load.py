"""How much this host has to do at this instant."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_crowded"]

_LOAD = Path("/proc/loadavg")
_CROWDED_SHARE = 2
"""Threads that want a CPU, for each CPU, from which one may have to wait for long."""


def is_crowded() -> bool:
    """True when so many threads want to run that a ready one may wait for seconds.

    And when nobody knows: the host has no descriptor left to read it with.
    """
    try:
        wanting = int(_LOAD.read_text().split()[3].partition("/")[0])
    except OSError:
        return True
    return wanting > _CROWDED_SHARE * (os.cpu_count() or 1)
