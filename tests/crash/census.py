"""What a home's machines are on the host: each is whole, or not there."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mitos.engine.gvisor.engine import group_of
from mitos.host import cgroup

__all__ = ["folders", "halves", "processes"]


def halves(home: Path) -> dict[str, list[str]]:
    """The machines that have only some of what a machine has: process, folder, control group."""
    found: dict[str, list[str]] = defaultdict(list)
    parts = {"process": processes(home), "folder": folders(home), "group": groups(home)}
    for part, names in parts.items():
        for name in names:
            found[name].append(part)
    return {name: has for name, has in found.items() if len(has) < len(parts)}


def folders(home: Path) -> set[str]:
    """The machines that have a folder."""
    place = home / "run" / "machines"
    return {entry.name for entry in place.iterdir()} if place.exists() else set()


def groups(home: Path) -> set[str]:
    """The machines that have a control group."""
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    return set(hierarchy.children(group_of((home / "run").resolve())))


def processes(home: Path) -> dict[str, int]:
    """The machines that have a kernel, and its process."""
    argument = b"--bundle=" + bytes((home / "run").resolve() / "machines") + b"/"
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            for word in words:
                if word.startswith(argument) and b"boot" in words:
                    found[word.removeprefix(argument).decode()] = int(entry.name)
    return found
