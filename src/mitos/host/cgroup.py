"""Control groups, version 1 and 2: what a sandbox uses, whether it hit its limit, and its removal.

The runtime makes the groups and sets the limits (it also tells the guest's kernel about them); this
module reads and removes them, and changes the limit of memory while the engine works. Which version
counts is decided as the runtime does: version 2 when `/sys/fs/cgroup` itself is a version 2 tree.

    v1: <mount of each controller>/<group>/{memory.usage_in_bytes, cpuacct.usage, …}
    v2: /sys/fs/cgroup/<group>/{memory.current, memory.events, cpu.stat, …}
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Hierarchy", "HierarchyV1", "HierarchyV2", "Memory", "detect", "kill_all"]

_MOUNT_POINT = "/sys/fs/cgroup"
_NEEDED = ("memory", "cpu", "pids")
_KILL_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Memory:
    """What of a group's memory is what.

    Attributes:
        shared_bytes: memory files and tmpfs; of a sandbox, what its guest has.
        private_bytes: its processes' own.
    """

    shared_bytes: int
    private_bytes: int


class Hierarchy(Protocol):
    """A machine's control groups; a group is named by its path, such as `mitos/box-1`."""

    def missing(self) -> list[str]:
        """Controllers that limits need and this machine does not offer to us."""
        raise NotImplementedError

    def memory_bytes(self, group: str) -> int:
        """Memory the group uses, without what the kernel can drop at once.

        Raises:
            OSError: there is no such group; likewise for the other readings.
        """
        raise NotImplementedError

    def memory(self, group: str) -> Memory:
        """What of its memory is what."""
        raise NotImplementedError

    def memory_limit(self, group: str) -> int:
        """How much memory the group may use."""
        raise NotImplementedError

    def set_memory_limit(self, group: str, limit_bytes: int) -> None:
        """Changes how much memory the group may use.

        Raises:
            OSError: there is no such group, or (version 1) it uses more and cannot give it up.
        """
        raise NotImplementedError

    def cpu_seconds(self, group: str) -> float:
        """CPU time the group has used."""
        raise NotImplementedError

    def oom_kills(self, group: str) -> int:
        """How many processes the kernel killed because the group was at its memory limit."""
        raise NotImplementedError

    def refused_tasks(self, group: str) -> int:
        """How many processes and threads were refused because the group was at its limit."""
        raise NotImplementedError

    def folders(self, group: str) -> list[Path]:
        """The folders that make up the group, also those that do not exist."""
        raise NotImplementedError

    def children(self, group: str) -> set[str]:
        """Names of the groups right inside the group."""
        found: set[str] = set()
        for folder in self.folders(group):
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in folder.iterdir() if entry.is_dir())
        return found

    def processes(self, group: str) -> set[int]:
        """Ids of the processes in the group."""
        found: set[int] = set()
        for folder in self.folders(group):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
        return found

    def remove(self, group: str) -> None:
        """Removes the group, which must hold no process. Idempotent.

        Raises:
            OSError: it still holds processes or groups.
        """
        for folder in self.folders(group):
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()


@dataclass(frozen=True, slots=True)
class HierarchyV1(Hierarchy):
    """One tree per controller.

    Attributes:
        mounts: the root folder of each controller.
    """

    mounts: Mapping[str, Path]

    def missing(self) -> list[str]:
        """Controllers that limits need and this machine does not offer to us."""
        return [
            name
            for name in _NEEDED
            if name not in self.mounts or not os.access(self.mounts[name], os.W_OK)
        ]

    def memory_bytes(self, group: str) -> int:
        """Memory the group uses, without what the kernel can drop at once."""
        folder = self.mounts["memory"] / group
        used = int((folder / "memory.usage_in_bytes").read_text())
        return max(0, used - _table(folder / "memory.stat").get("total_inactive_file", 0))

    def memory(self, group: str) -> Memory:
        """What of its memory is what."""
        table = _table(self.mounts["memory"] / group / "memory.stat")
        return Memory(table.get("total_shmem", table.get("total_cache", 0)), table["total_rss"])

    def memory_limit(self, group: str) -> int:
        """How much memory the group may use."""
        return int((self.mounts["memory"] / group / "memory.limit_in_bytes").read_text())

    def set_memory_limit(self, group: str, limit_bytes: int) -> None:
        """Changes how much memory the group may use."""
        (self.mounts["memory"] / group / "memory.limit_in_bytes").write_text(str(limit_bytes))

    def cpu_seconds(self, group: str) -> float:
        """CPU time the group has used."""
        return int((self.mounts["cpuacct"] / group / "cpuacct.usage").read_text()) / 1e9

    def oom_kills(self, group: str) -> int:
        """How many processes the kernel killed because the group was at its memory limit."""
        return _table(self.mounts["memory"] / group / "memory.oom_control").get("oom_kill", 0)

    def refused_tasks(self, group: str) -> int:
        """How many processes and threads were refused because the group was at its limit."""
        return _table(self.mounts["pids"] / group / "pids.events").get("max", 0)

    def folders(self, group: str) -> list[Path]:
        """The folders that make up the group, one per tree."""
        return [root / group for root in dict.fromkeys(self.mounts.values())]


@dataclass(frozen=True, slots=True)
class HierarchyV2(Hierarchy):
    """One tree for all controllers.

    Attributes:
        root: where it is mounted.
    """

    root: Path

    def missing(self) -> list[str]:
        """Controllers that limits need and this machine does not offer to us."""
        if not os.access(self.root, os.W_OK):
            return list(_NEEDED)
        offered = (self.root / "cgroup.controllers").read_text().split()
        return [name for name in _NEEDED if name not in offered]

    def memory_bytes(self, group: str) -> int:
        """Memory the group uses, without what the kernel can drop at once."""
        folder = self.root / group
        used = int((folder / "memory.current").read_text())
        return max(0, used - _table(folder / "memory.stat").get("inactive_file", 0))

    def memory(self, group: str) -> Memory:
        """What of its memory is what."""
        table = _table(self.root / group / "memory.stat")
        return Memory(table["shmem"], table["anon"])

    def memory_limit(self, group: str) -> int:
        """How much memory the group may use; as good as infinitely much where there is no limit."""
        text = (self.root / group / "memory.max").read_text().strip()
        return sys.maxsize if text == "max" else int(text)

    def set_memory_limit(self, group: str, limit_bytes: int) -> None:
        """Changes how much memory the group may use; it must use less than that."""
        (self.root / group / "memory.max").write_text(str(limit_bytes))

    def cpu_seconds(self, group: str) -> float:
        """CPU time the group has used."""
        return _table(self.root / group / "cpu.stat").get("usage_usec", 0) / 1e6

    def oom_kills(self, group: str) -> int:
        """How many processes the kernel killed because the group was at its memory limit."""
        return _table(self.root / group / "memory.events").get("oom_kill", 0)

    def refused_tasks(self, group: str) -> int:
        """How many processes and threads were refused because the group was at its limit."""
        return _table(self.root / group / "pids.events").get("max", 0)

    def folders(self, group: str) -> list[Path]:
        """The group's one folder."""
        return [self.root / group]


def detect(mountinfo: str) -> Hierarchy | None:
    """Reads `/proc/self/mountinfo` for the machine's control groups; None when there are none."""
    mounts: dict[str, Path] = {}
    for point, kind, options in _cgroup_mounts(mountinfo):
        if kind == "cgroup2" and point == _MOUNT_POINT:
            return HierarchyV2(Path(point))
        if kind == "cgroup":
            # A named tree ("name=systemd") has no controller but holds the group as well.
            named = [o for o in options if o not in ("rw", "ro", "xattr", "clone_children")]
            mounts.update((name, Path(point)) for name in named)
    return HierarchyV1(mounts) if mounts else None


async def kill_all(hierarchy: Hierarchy, group: str, *, timeout_s: float) -> None:
    """Kills every process of a group and waits until none is left.

    Raises:
        TimeoutError: some process did not end in time.
    """
    ours: set[int] = set()
    async with asyncio.timeout(timeout_s):
        while left := hierarchy.processes(group):
            ours |= left
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _reap(ours)
            await asyncio.sleep(_KILL_POLL_S)
    _reap(ours)


def _reap(pids: set[int]) -> None:
    # Where we are the init of a container, orphans are ours to collect.
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if separator and len(before) >= 5 and len(after) >= 3:
            yield before[4], after[0], after[2].split(",")


def _table(path: Path) -> dict[str, int]:
    table = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            table[name] = int(value)
    return table
