"""Waits with a deadline for what the server does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

from mitos.node.principal import LOCAL
from tests.server.serving import Server


def until(holds: Callable[[], object], deadline_s: float = 5.0) -> float:
    """Waits until something holds; returns how long it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < deadline_s, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - started


def open_streams(server: Server, sandbox: str) -> int:
    """Commands, cells and terminals that run in a sandbox."""
    return server.node._parts.registry.find(LOCAL.owner, sandbox).open_streams
