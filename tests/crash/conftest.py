"""The scene that the moments of a file share, for as long as nothing of it was lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.moment import Moment
from tests.crash.scene import Scene, Trouble
from tests.crash.world import World
from tests.integration.leftovers import Leftovers
from tests.machine import borrow_cache, why_no_real_sandboxes


class Stage:
    """Makes scenes, one after the other when one is spoilt.

    Args:
        folder: for their homes.
        make_world: makes what a scene lives in, in a folder of its own.
    """

    def __init__(self, folder: Path, make_world: Callable[[Path], World]) -> None:
        self._folder = folder
        self._make_world = make_world
        self._places: list[Path] = []
        self._scene: Scene | None = None
        self._leftovers: Leftovers | None = None

    def play(self, moment: Moment, trouble: Trouble | None = None) -> None:
        """One moment, on the scene of the earlier ones; a moment that fails spoils it."""
        print(f"moment {moment}")
        try:
            if self._scene is None:
                self._scene = self._make()
            self._scene.complete()
            self._scene.play(moment, trouble)
        except BaseException:
            self._clear()
            raise

    def close(self) -> None:
        """Ends the scene, of which nothing may be left."""
        if self._scene is not None:
            self._scene.close()
            assert self._leftovers is not None
            assert self._leftovers.found() == []
        for place in self._places:
            shutil.rmtree(place, ignore_errors=True)

    def _make(self) -> Scene:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        self._places.append(place)
        world = self._make_world(place)
        self._leftovers = Leftovers(world.home)
        return Scene(world)

    def _clear(self) -> None:
        """Ends what a failed moment left; its log stays in the report."""
        scene, self._scene = self._scene, None
        if scene is not None:
            print(f"server's log:\n{scene.world.said()}")
            scene.world.kill()
            scene.world.start()
            scene.close()


def make_home(place: Path) -> Path:
    """A home that has the machine's root filesystems."""
    home = place / "home"
    home.mkdir()
    borrow_cache(home)
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the homes of a file's scenes."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder, lambda place: World(make_home(place), place))
    yield made
    made.close()
