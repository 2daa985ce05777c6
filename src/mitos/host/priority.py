"""Who goes first on a CPU: the thread of the event loop, or what it has started.

All requests wait for the loop, which itself works little. Among the many processes that a burst of
requests starts, it would get its turn as one of them, tens of milliseconds late each time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["as_usual", "first"]

_NICE = -10
"""Of sched(7): about ten times the weight of what has 0."""

_usual = os.getpriority(os.PRIO_PROCESS, 0)

# Linux weighs sessions first, where it groups by them, and only inside each its threads.
_session = Path("/proc/self/autogroup")


@contextlib.contextmanager
def first() -> Iterator[None]:
    """Puts this thread, and those it starts, before others for the time of the block.

    A host that does not allow it, as to users other than root, leaves them as they are.
    """
    thread = threading.get_native_id()
    grouped = _session_nice()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, _NICE)
    except PermissionError:
        yield
        return
    _set_session(_NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, _usual)
        _set_session(grouped)


def as_usual() -> None:
    """Gives this thread, and the processes it starts, the priority that this process began with."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _usual)


def _session_nice() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(_session.read_text().rpartition(" ")[2])
    return 0


def _set_session(nice: int) -> None:
    with contextlib.suppress(OSError):
        _session.write_text(str(nice))
