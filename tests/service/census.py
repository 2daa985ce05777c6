"""What there is on a booted machine that an installation could leave behind.

`python -m tests.service.census HOME...` says it there, as a JSON list.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WRITTEN = Path("/mnt/upper")
"""What was written below the root since the machine was booted, see `boot`."""

IN_MEMORY = ("/run", "/tmp", "/dev/shm")

OF_SYSTEMD = ("/var/log/journal/", "/run/log/journal/", "/run/systemd/journal/")
"""Logs stay by design."""


def census(homes: list[str]) -> set[str]:
    """One line for each thing that is in no home."""
    left_out = (*homes, *OF_SYSTEMD)
    found = {
        f"file {path}"
        for path in files()
        # What Python keeps of the checkout it keeps for every command.
        if not path.startswith(left_out) and "/__pycache__/" not in path
    }
    found |= {f"unit {name}" for name in units()}
    found |= {f"process {name}" for name in processes()}
    groups = Path("/sys/fs/cgroup").rglob("mitos*")
    return found | {f"control group {path}" for path in groups if path.is_dir()}


def files() -> Iterator[str]:
    for root in (WRITTEN, *map(Path, IN_MEMORY)):
        for folder, _, names in os.walk(root):
            place = Path("/") / Path(folder).relative_to(WRITTEN) if root == WRITTEN else folder
            # A folder that was there before is here too once something in it was written.
            yield from (str(Path(place) / name) for name in names)
            if root != WRITTEN:
                yield f"{place}/"


def units() -> list[str]:
    said = subprocess.run(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "mitos*"],
        capture_output=True,
        text=True,
        check=True,
    )
    known = subprocess.run(
        ["systemctl", "list-unit-files", "--plain", "--no-legend", "mitos*"],
        capture_output=True,
        text=True,
        check=False,  # 1: there is none
    )
    return [*said.stdout.splitlines(), *known.stdout.splitlines()]


def processes() -> Iterator[str]:
    """By their command lines; kernels of sandboxes hide theirs, so all count by their user too."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield f"{entry.stat().st_uid} {words}"
            except FileNotFoundError:
                continue


if __name__ == "__main__":
    print(json.dumps(sorted(census(sys.argv[1:]))))
