"""The host's faults while requests run: disks that fill up, lose their inodes or turn read-only,
descriptors that run out. Every request is done or refused in a typed form, nothing is left half
made, and everything can be ended while the fault lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.machine import room
from mitos.node.template.catalog import CONFIGURATION_NAME
from mitos.wire.errors import ApiError
from tests.node.conftest import StartNode
from tests.node.consistency import check
from tests.node.state.test_storage_fault import ACTS, prepared

INODES = 400


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[None]:
    """Home and scratch on small disks of their own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts small disks")
    mounted = []
    try:
        for name in ("home", "scratch"):
            (tmp_path / name).mkdir()
            size = f"size=4m,nr_inodes={INODES}"
            argv = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", tmp_path / name]
            subprocess.run(argv, check=True)
            mounted.append(tmp_path / name)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    file = folder / "filler"
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(size))
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def without_inodes(folder: Path) -> Iterator[None]:
    made = []
    with contextlib.suppress(OSError):
        for number in range(2 * INODES):
            (folder / f"filler-{number}").touch()
            made.append(folder / f"filler-{number}")
    assert 0 == os.statvfs(folder).f_favail
    try:
        yield
    finally:
        for file in made:
            file.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


@contextlib.contextmanager
def without_descriptors(_: Path) -> Iterator[None]:
    """Fewer are left than a machine may take."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 2 * room.KEPT, usual[1]))
    with contextlib.ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, usual)
        opened: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(0))
        for descriptor in opened[: -room.KEPT // 2]:
            undo.callback(os.close, descriptor)
        for descriptor in opened[-room.KEPT // 2 :]:
            os.close(descriptor)
        yield


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Another program, say an administrator's shell, holds the state."""
    with contextlib.closing(sqlite3.connect(home / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


Fault = Callable[[Path], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "home full": (full, "home"),
    "home without inodes": (without_inodes, "home"),
    "state locked": (locked, "home"),
    "scratch full": (full, "scratch"),
    "scratch without inodes": (without_inodes, "scratch"),
    "scratch read-only": (read_only, "scratch"),
    "no descriptors": (without_descriptors, "home"),
}
REFUSED = {
    ("home full", "checkpoint"): "disk",
    ("home full", "hibernate"): "disk",
    ("home without inodes", "checkpoint"): "disk",
    ("home without inodes", "hibernate"): "disk",
    ("state locked", "create"): "",
    ("state locked", "fork"): "",
    ("state locked", "pause"): "",
    ("state locked", "delete a template"): "",
    ("scratch full", "fork"): "disk",
    ("scratch without inodes", "fork"): "disk",
    ("scratch without inodes", "partial fork"): "disk",
    ("scratch read-only", "fork"): "",
    ("no descriptors", "create"): "descriptors",
    ("no descriptors", "fork"): "descriptors",
    ("no descriptors", "fork from inside"): "descriptors",
    ("no descriptors", "wake"): "descriptors",
}
"""What cannot be done under a fault, and the dimension that is told; empty where none is."""


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_request_under_a_fault_of_the_host(
    disks: None,
    start_node: StartNode,
    engine: FakeEngine,
    tmp_path: Path,
    fault: str,
    name: str,
) -> None:
    before, act = ACTS[name]
    make, place = FAULTS[fault]
    node = await prepared(start_node)
    await before(node)

    with make(tmp_path / place):
        (error,) = await asyncio.gather(act(node), return_exceptions=True)
        for record in node.list_sandboxes():
            await node.terminate(record.id)
        assert ([], {}) == (node.list_sandboxes(), engine.machines)

    await node.templates.create("python")
    await node.create("python", "next")
    check(node, engine)
    if (fault, name) not in REFUSED and not isinstance(error, BaseException):
        return
    assert isinstance(error, ApiError)
    dimension = error.context.get("dimension", "")
    expected = ("quota_exceeded", 429) if dimension else ("internal", 503)
    assert (error.code, error.status) == expected
    assert error.remediation
    assert REFUSED.get((fault, name), dimension) == dimension


async def test_an_image_that_the_disk_has_no_room_for_is_no_fault_of_the_image(
    disks: None,
    start_node: StartNode,
    engine: FakeEngine,
    tmp_path: Path,
) -> None:
    """Some space is always left to others."""
    archive = tmp_path / "packed.tar"
    with tarfile.open(archive, "w") as packed:
        for name in ("etc/hostname", "bin/sh"):
            member = tarfile.TarInfo(name)
            member.size = 200_000
            packed.addfile(member, io.BytesIO(bytes(member.size)))
    (tmp_path / "home" / CONFIGURATION_NAME).write_text(
        f'[templates.packed]\nrootfs = "{archive}"\n'
    )
    node = await start_node()

    with pytest.raises(ApiError) as caught:
        await node.templates.create("packed")

    assert ("quota_exceeded", "disk") == (caught.value.code, caught.value.context["dimension"])
    left = [path.name for path in (tmp_path / "home" / "rootfs").iterdir()]
    assert [] == [name for name in left if not name.endswith(".lock")]
    check(node, engine)


async def test_a_home_that_is_read_only_at_start_is_told(
    disks: None,
    start_node: StartNode,
    tmp_path: Path,
) -> None:
    await (await start_node()).close()

    with read_only(tmp_path / "home"), pytest.raises(ApiError, match="home") as caught:
        await start_node()

    assert ("internal", 503) == (caught.value.code, caught.value.status)


async def test_a_home_that_is_full_at_start_is_told_and_nothing_is_lost(
    disks: None,
    start_node: StartNode,
    engine: FakeEngine,
    tmp_path: Path,
) -> None:
    node = await prepared(start_node)
    await node.hibernate("one")
    await node.close()

    with full(tmp_path / "home"), pytest.raises(ApiError) as caught:
        await start_node()
    assert ("quota_exceeded", "disk") == (caught.value.code, caught.value.context["dimension"])

    node = await start_node()
    assert ["one"] == [each.id for each in node.list_sandboxes()]
    check(node, engine)
