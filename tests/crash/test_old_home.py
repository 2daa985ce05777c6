"""A home of the version before: what it had is accounted for, and what is new on it outlives kills.

The machines of that version ended with their server. Its state is in `before_adoption.sql`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import mitos
from tests.crash.conftest import Stage, make_home
from tests.crash.moment import Moment, of_variation
from tests.crash.point import IDLE
from tests.crash.world import World
from tests.integration.leftovers import Leftovers

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

STATE = Path(__file__).parent / "before_adoption.sql"

ENDED = {
    "ran": "its server was stopped",
    "ran-1": "its server was stopped",
    "ran-2": "its server was stopped",
    "slept-child": "its server was stopped",
    "ended": "it was terminated",
}
"""Why each sandbox of that home is no more."""


def old_world(place: Path) -> World:
    """A world whose home has the old state."""
    home = make_home(place)
    with closing(sqlite3.connect(home / "state.db")) as database:
        database.executescript(STATE.read_text().replace("@HOME@", str(home)))
    return World(home, place)


def test_all_of_an_old_home_is_accounted_for(folder: Path) -> None:
    place = folder / "accounts"
    place.mkdir()
    world = old_world(place)
    leftovers = Leftovers(world.home)
    world.start(IDLE, "--prepare", "python")
    try:
        assert {} == world.listing()
        for name, cause in ENDED.items():
            sandbox = mitos.DirectSandbox(name, "python", world.url, world.url, 1.0)
            with pytest.raises(mitos.NotFoundError) as caught:
                sandbox.exec("true")
            assert cause == caught.value.cause
        with world.client.fork("python", id="ran") as again:
            assert "up\n" == again.exec("echo up").stdout
    finally:
        world.stop()
    assert [] == leftovers.found()


@pytest.fixture(scope="module")
def old_stage(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder, old_world)
    yield stage
    stage.close()


@pytest.mark.crash
@pytest.mark.parametrize("seed", of_variation(4))
def test_a_moment_on_an_old_home(old_stage: Stage, seed: int) -> None:
    old_stage.play(Moment.of(seed))
