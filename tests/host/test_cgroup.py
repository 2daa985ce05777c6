"""Control groups on made-up trees of files, and on the machine's own where it lets us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mitos.host import cgroup, process
from mitos.host.cgroup import HierarchyV1, HierarchyV2

_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
_V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def _tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v1(tmp_path: Path) -> HierarchyV1:
    _tree(
        tmp_path,
        {
            "memory/top/box/memory.usage_in_bytes": "5000000\n",
            "memory/top/box/memory.stat": "cache 10\ntotal_inactive_file 1000000\n",
            "memory/top/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "memory/top/box/cgroup.procs": "11\n12\n",
            "memory/top/box/memory.limit_in_bytes": "8000000\n",
            "pids/top/box/pids.events": "max 3\n",
            "cpu/top/box/cpuacct.usage": "2500000000\n",
            "cpu/top/box/cgroup.procs": "12\n13\n",
        },
    )
    both = tmp_path / "cpu"
    return HierarchyV1(
        {"memory": tmp_path / "memory", "cpu": both, "cpuacct": both, "pids": tmp_path / "pids"}
    )


@pytest.fixture
def v2(tmp_path: Path) -> HierarchyV2:
    _tree(
        tmp_path,
        {
            "cgroup.controllers": "cpuset cpu io memory pids\n",
            "top/box/memory.current": "5000000\n",
            "top/box/memory.stat": "anon 3\ninactive_file 1000000\n",
            "top/box/memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n",
            "top/box/memory.max": "8000000\n",
            "top/box/pids.events": "max 4\n",
            "top/box/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
            "top/box/cgroup.procs": "11\n",
        },
    )
    return HierarchyV2(tmp_path)


def test_version_1_is_found_with_each_controller() -> None:
    found = cgroup.detect(_V1)

    assert isinstance(found, HierarchyV1)
    assert {name: str(path) for name, path in found.mounts.items()} == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/pids",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }


def test_version_2_is_found_when_it_is_the_tree() -> None:
    assert cgroup.detect(_V2) == HierarchyV2(Path("/sys/fs/cgroup"))


def test_no_control_groups_is_none() -> None:
    assert cgroup.detect("22 27 0:21 / /proc rw - proc proc rw\n\ngarbage\n") is None


def test_version_1_readings(v1: HierarchyV1) -> None:
    assert v1.memory_bytes("top/box") == 4_000_000
    assert v1.cpu_seconds("top/box") == 2.5
    assert v1.oom_kills("top/box") == 2
    assert v1.processes("top/box") == {11, 12, 13}
    assert v1.children("top") == {"box"}


def test_version_2_readings(v2: HierarchyV2) -> None:
    assert v2.memory_bytes("top/box") == 4_000_000
    assert v2.cpu_seconds("top/box") == 2.5
    assert v2.oom_kills("top/box") == 1
    assert v2.processes("top/box") == {11}
    assert v2.children("top") == {"box"}


def test_a_group_that_is_gone_has_no_readings_and_no_processes(v2: HierarchyV2) -> None:
    with pytest.raises(FileNotFoundError):
        v2.memory_bytes("top/other")

    assert v2.processes("top/other") == set()
    assert v2.children("other") == set()


def test_removing_is_idempotent_and_covers_every_tree(tmp_path: Path) -> None:
    hierarchy = HierarchyV1({"memory": tmp_path / "memory", "cpu": tmp_path / "cpu"})
    for folder in hierarchy.folders("top/box"):
        folder.mkdir(parents=True)

    hierarchy.remove("top/box")
    hierarchy.remove("top/box")

    assert hierarchy.children("top") == set()


def test_missing_controllers_are_named(v1: HierarchyV1, v2: HierarchyV2, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir(exist_ok=True)
    assert v1.missing() == []
    assert v2.missing() == []

    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    assert v2.missing() == ["memory", "pids"]
    assert HierarchyV1({"cpu": tmp_path}).missing() == ["memory", "pids"]


async def test_every_process_of_a_real_group_is_killed() -> None:
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    if os.geteuid() != 0 or hierarchy is None or hierarchy.missing():
        pytest.skip("this machine does not let us make control groups")
    group = f"mitos-test-{os.getpid()}"
    folder = hierarchy.folders(group)[0]
    folder.mkdir()
    script = f"echo $$ > {folder}/cgroup.procs; sleep 60 & setsid sleep 60 & wait"
    child = await process.start(["sh", "-c", script])
    try:
        while len(hierarchy.processes(group)) < 3:
            assert child.is_running

        await cgroup.kill_all(hierarchy, group, timeout_s=5)

        assert hierarchy.processes(group) == set()
    finally:
        await child.kill()
        hierarchy.remove(group)


def test_the_limit_of_memory_can_be_changed(v1: HierarchyV1, v2: HierarchyV2) -> None:
    v1.set_memory_limit("top/box", 9 << 20)
    v2.set_memory_limit("top/box", 9 << 20)

    changed = [
        v1.mounts["memory"] / "top/box/memory.limit_in_bytes",
        v2.root / "top/box/memory.max",
    ]
    assert [path.read_text() for path in changed] == [str(9 << 20)] * 2


def test_refused_processes_are_counted(v1: HierarchyV1, v2: HierarchyV2) -> None:
    assert v1.refused_tasks("top/box") == 3
    assert v2.refused_tasks("top/box") == 4
