"""What tests with real sandboxes need from the machine, and what engines may not leave on it."""

from __future__ import annotations

import os
from pathlib import Path

from mitos.host import cgroup, process

__all__ = ["Leftovers", "runsc", "why_no_real_sandboxes"]


def runsc() -> Path:
    """The binary that `scripts/install` puts in place."""
    home = Path(os.environ.get("MITOS_HOME") or "/var/lib/mitos")
    return home / "bin" / "runsc"


def why_no_real_sandboxes() -> str:
    """The reason real sandboxes cannot run here, or an empty string."""
    if os.geteuid() != 0:
        return "real sandboxes need root on this machine"
    if not runsc().exists():
        return "runsc is not installed: run scripts/install"
    return ""


class Leftovers:
    """Looks for traces of an engine whose state folder is known.

    Args:
        state: the engine's state folder; processes, mounts and files name it.
        group: the engine's control group.
    """

    def __init__(self, state: Path, group: str) -> None:
        self._state = state
        self._group = group

    def sandboxes(self) -> list[str]:
        """Traces of sandboxes: what must be gone after each `destroy`."""
        found = [f"process {pid}" for pid in process.find(f"--root={self._state / 'runsc'}")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line.split()[4]}" for line in mounts if str(self._state) in line]
        found += [f"file {path}" for path in self._state.rglob("*") if path.parent != self._state]
        hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
        assert hierarchy is not None
        found += [f"control group {name}" for name in hierarchy.children(self._group)]
        return found
