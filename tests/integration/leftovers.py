"""Finds what a server left on the machine: processes, mounts, control groups, sockets, files.

A user namespace is there for as long as a process is in it, and those are found by their user.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mitos.engine.gvisor.users import Users

__all__ = ["Leftovers"]

USERS = 0x1_0000
"""How many numbers an engine has for the users of its sandboxes."""


class Leftovers:
    """What is on the machine that mentions one home, against what was there at the start.

    Args:
        home: the server's home; everything the server makes names it, or lies in it.
    """

    def __init__(self, home: Path) -> None:
        self._home = str(home)
        first = Users((home / "run").resolve())._first
        self._users = range(first, first + USERS)
        self._before = set(self._look())

    def found(self) -> list[str]:
        """What is there now and was not at the start."""
        return sorted(set(self._look()) - self._before)

    def _look(self) -> list[str]:
        return [
            *self._processes(),
            *self._mounts(),
            *self._control_groups(),
            *self._sockets(),
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
                user = re.search(r"^Uid:\t(\d+)", (entry / "status").read_text(), re.MULTILINE)
            except OSError:
                continue
            is_named = self._home in command and "pytest" not in command
            # One without a command line has ended, and waits for its parent to take note.
            if is_named or (command and user and int(user[1]) in self._users):
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

    def _sockets(self) -> list[str]:
        lines = Path("/proc/net/unix").read_text().splitlines()
        return [f"socket {line.split()[-1]}" for line in lines if self._home in line]

    def _files(self) -> list[str]:
        home = Path(self._home)
        scratch = Path("/dev/shm", f"mitos-{hashlib.sha256(bytes(home)).hexdigest()[:12]}")
        found = [path for path in (home / "run").rglob("*") if not path.is_dir()]
        for pattern in ("run/machines/*", "hibernated/*", "checkpoints/*", "snapshots/building-*"):
            found += home.glob(pattern)
        return [f"file {path}" for path in (*found, *([scratch] if scratch.exists() else []))]
