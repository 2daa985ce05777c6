"""A real server on disks that fill up and with few descriptors: typed refusals, and all can end."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import mitos
from mitos.errors import AgentRunError
from tests.integration.conftest import Server, serve
from tests.integration.leftovers import Leftovers
from tests.machine import borrow_cache

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

HOME_SIZE = "512m"
SCRATCH_SIZE = "64m"
MACHINES = 12
"""More than the descriptors that a test leaves are enough for."""


@dataclass(frozen=True)
class Place:
    """A server whose home and scratch folder are small disks."""

    server: Server
    scratch: Path


@pytest.fixture
def place(small_disks: Place) -> Iterator[Place]:
    yield small_disks
    end_all(small_disks.server)


@pytest.fixture(scope="module")
def small_disks(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    top = tmp_path_factory.mktemp("faults")
    own, scratch = top / "home", top / "scratch"
    with contextlib.ExitStack() as undo:
        for folder, size in ((own, HOME_SIZE), (scratch, SCRATCH_SIZE)):
            folder.mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True
            )
            undo.callback(subprocess.run, ["umount", "-l", folder], check=True)
        borrow_cache(own)
        leftovers = Leftovers(own)
        options = ["--engine", "gvisor", "--prepare", "python", "--scratch", str(scratch)]
        with serve(own, top / "server.log", *options) as running:
            yield Place(running, scratch)
        assert leftovers.found() == []


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    file = folder / "filler"
    taken = 0
    with file.open("wb") as stream:
        for step in (16 << 20, 1 << 20, 4 << 10):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(stream.fileno(), taken, step)
                    taken += step
    try:
        yield
    finally:
        file.unlink()


def refused(call: Callable[[], object], dimension: str) -> AgentRunError:
    with pytest.raises(AgentRunError) as caught:
        call()
    assert "quota_exceeded" == caught.value.code
    assert dimension == caught.value.context.get("dimension")
    assert caught.value.remediation
    return caught.value


def end_all(server: Server) -> None:
    """Each on a connection of its own, as `mitos sandbox terminate` does."""
    for row in httpx.get(f"{server.url}/v1/sandboxes").json():
        assert 200 == httpx.delete(f"{server.url}/v1/sandboxes/{row['id']}").status_code
    assert [] == httpx.get(f"{server.url}/v1/sandboxes").json()


def test_a_home_that_fills_up(place: Place) -> None:
    one, two = place.server.create(), place.server.create()
    two.hibernate()

    with full(place.server.home):
        refused(lambda: one.checkpoint("kept"), "disk")
        refused(one.hibernate, "disk")
        assert "alive\n" == one.exec("echo alive").stdout
        refused(lambda: two.exec("echo alive"), "disk")  # it would have to be woken
        end_all(place.server)

    with place.server.create() as again:
        assert [] == again.checkpoints()
        assert again.checkpoint("kept").name == "kept"


def test_a_scratch_folder_that_fills_up(place: Place) -> None:
    with place.server.create() as source:
        with full(place.scratch):
            refused(lambda: source.fork(2), "disk")
            assert "alive\n" == source.exec("echo alive").stdout
            assert [source.id] == [
                row["id"] for row in httpx.get(f"{place.server.url}/v1/sandboxes").json()
            ]
        (child,) = source.fork(1)
        assert "alive\n" == child.exec("echo alive").stdout
        child.terminate()


def test_descriptors_that_run_out(place: Place) -> None:
    pid = place.server.process.pid
    source = place.server.create()
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 80, usual[1]))
    try:
        made: list[mitos.DirectSandbox] = []
        create_all = (place.server.create() for _ in range(MACHINES))
        refused(lambda: made.extend(create_all), "descriptors")
        refused(lambda: source.fork(MACHINES), "descriptors")
        assert all("alive\n" == each.exec("echo alive").stdout for each in (source, *made))
        end_all(place.server)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)

    with place.server.create() as again:
        assert "alive\n" == again.exec("echo alive").stdout
