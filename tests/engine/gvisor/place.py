"""What engines may not leave on the machine."""

from __future__ import annotations

from pathlib import Path

from mitos.host import cgroup, process

__all__ = ["Leftovers"]


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
