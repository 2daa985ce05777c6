"""Finds what a server left behind on the machine: processes, mounts, control groups, files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["Leftovers"]


class Leftovers:
    """What is on the machine that mentions one home, against what was there at the start.

    Args:
        home: the server's home; everything the server makes names it, or lies in it.
    """

    def __init__(self, home: Path) -> None:
        self._home = str(home)
        self._before = set(self._look())

    def found(self) -> list[str]:
        """What is there now and was not at the start."""
        return sorted(set(self._look()) - self._before)

    def _look(self) -> list[str]:
        return [
            *self._processes(),
            *self._mounts(),
            *self._control_groups(),
            *self._files(),
        ]

    def _processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue
            if self._home in command and "pytest" not in command:
                found.append(f"process {entry.name}: {command[:200]}")
        return found

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [f"mount {line.split()[4]}" for line in lines if self._home in line]

    def _control_groups(self) -> list[str]:
        state = (Path(self._home) / "run").resolve()
        group = f"mitos-{hashlib.sha256(bytes(state)).hexdigest()[:12]}"
        # Unlike a glob, this does not mind the groups of others that go meanwhile.
        folders = (Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup"))
        return [f"control group {path}" for path in folders if path.name == group]

    def _files(self) -> list[str]:
        run = Path(self._home) / "run"
        scratch = Path(
            "/dev/shm", f"mitos-{hashlib.sha256(bytes(Path(self._home))).hexdigest()[:12]}"
        )
        inside = [path for path in run.rglob("*") if not path.is_dir()] if run.exists() else []
        return [f"file {path}" for path in (*inside, *([scratch] if scratch.exists() else []))]
