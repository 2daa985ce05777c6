"""Twenty moments each in which the host is in trouble when the next server starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mitos
from tests.crash.census import processes
from tests.crash.conftest import Stage, make_home
from tests.crash.moment import Moment, of_variation
from tests.crash.point import IDLE, Point
from tests.crash.scene import Scene, Trouble
from tests.crash.world import World, until
from tests.integration.test_host_fault import full

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

HOME_SIZE = "1g"
SCRATCH_SIZE = "256m"
DESCRIPTORS = 256

DOOMED = "two"
"""The resident whose machine is ended."""


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own, in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


class FullDisk(Trouble):
    """A disk that has not a byte left.

    Args:
        disk: a folder on it.
        allows_create: what can be made on it meanwhile.
    """

    def __init__(self, disk: Path, *, allows_create: bool) -> None:
        self._disk = disk
        self._undo = contextlib.ExitStack()
        self.allows_create = allows_create

    def begin(self, scene: Scene) -> None:
        self._undo.enter_context(full(self._disk))

    def end(self, scene: Scene) -> None:
        self._undo.close()


class DeadMachine(Trouble):
    """A machine that ends while there is no server."""

    ended = frozenset({DOOMED})

    def begin(self, scene: Scene) -> None:
        machine = machine_of(scene.world.home, DOOMED)
        os.kill(processes(scene.world.home)[machine], signal.SIGKILL)
        until(lambda: machine not in processes(scene.world.home), "the machine is dead")

    def end(self, scene: Scene) -> None:
        sandbox = next(each.sandbox for each in scene.residents if each.id == DOOMED)
        with pytest.raises(mitos.NotFoundError) as caught:
            sandbox.exec("true")
        assert caught.value.cause


def machine_of(home: Path, sandbox_id: str) -> str:
    """The machine of a living sandbox, as the state tells it."""
    with contextlib.closing(sqlite3.connect(home / "state.db")) as database:
        ((body,),) = database.execute(
            "SELECT body FROM sandbox WHERE id = ? AND ended_at IS NULL", (sandbox_id,)
        )
    return str(json.loads(body)["machine"])


@pytest.fixture(scope="module")
def small_scratch(folder: Path) -> Iterator[tuple[Stage, Path]]:
    with small_disk(folder / "disk", SCRATCH_SIZE) as disk:
        scratch = ("--scratch", str(disk / "scratch"))
        stage = Stage(folder, lambda place: World(make_home(place), place, *scratch))
        yield stage, disk
        stage.close()


@pytest.mark.parametrize("seed", of_variation(0))
def test_the_folder_of_snapshots_is_full(small_scratch: tuple[Stage, Path], seed: int) -> None:
    stage, disk = small_scratch
    stage.play(Moment.of(seed), FullDisk(disk, allows_create=True))


@pytest.fixture(scope="module")
def small_home(folder: Path) -> Iterator[tuple[Stage, Path]]:
    with small_disk(folder / "homes", HOME_SIZE) as disk:
        # The log and the port are no part of the state.
        beside = folder / "beside"
        beside.mkdir()
        stage = Stage(disk, lambda place: World(make_home(place), beside))
        yield stage, disk
        stage.close()


@pytest.mark.parametrize("seed", of_variation(1))
def test_the_disk_of_the_state_is_full(small_home: tuple[Stage, Path], seed: int) -> None:
    stage, disk = small_home
    stage.play(Moment.of(seed), FullDisk(disk, allows_create=False))


class FewDescriptors(World):
    """Its servers start with few descriptors, and are held to them.

    The hard limit stays: gVisor's kernel, which needs more, raises its own as far as that.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        super().__init__(home, folder, starter=("prlimit", f"--nofile={DESCRIPTORS}:", "--"))

    def start(self, point: Point = IDLE, *options: str) -> None:
        super().start(point, *options)
        subprocess.run(["prlimit", f"--pid={self.pid}", f"--nofile={DESCRIPTORS}:"], check=True)


@pytest.fixture(scope="module")
def few_descriptors(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder, lambda place: FewDescriptors(make_home(place), place))
    yield stage
    stage.close()


@pytest.mark.parametrize("seed", of_variation(2))
def test_descriptors_are_few(few_descriptors: Stage, seed: int) -> None:
    few_descriptors.play(Moment.of(seed))


@pytest.mark.parametrize("seed", of_variation(3))
def test_a_machine_dies_while_no_server_is_there(stage: Stage, seed: int) -> None:
    stage.play(Moment.of(seed), DeadMachine())
