"""What the sandboxes of a server hold in memory, as the host counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mitos.engine.gvisor.engine import group_of
from mitos.host import cgroup

__all__ = ["Meter"]


class Meter:
    """Reads what each sandbox of a server holds, its control group's own figure.

    Args:
        home: the server's.
    """

    def __init__(self, home: Path) -> None:
        found = cgroup.detect(Path("/proc/self/mountinfo").read_text())
        assert found is not None
        self._hierarchy = found
        self._group = group_of((home / "run").resolve())

    def read(self) -> dict[str, int]:
        """Bytes by machine; one that ends meanwhile is left out."""
        found: dict[str, int] = {}
        for name in self._hierarchy.children(self._group):
            with contextlib.suppress(OSError):
                found[name] = self._hierarchy.memory_bytes(f"{self._group}/{name}")
        return found
