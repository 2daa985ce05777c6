"""A state file that is torn, cut short or no database: opened, or refused in a typed form."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mitos.node.end import EndReason
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.state.conftest import MakeRow

ROWS = 60
SEEDS = 60


@pytest.fixture
def home(tmp_path: Path, clock: ManualClock, row: MakeRow) -> Path:
    """A home with living and ended sandboxes, and all of it in one file."""
    folder = tmp_path / "saved"
    folder.mkdir()
    state = State.open(folder, clock)
    for number in range(ROWS):
        state.sandboxes.begin([row(f"s{number}")])
        if number % 3:
            state.sandboxes.end(row(f"s{number}"), EndReason.DEADLINE)
    state.close()
    assert [folder / "state.db"] == list(folder.iterdir())
    return folder


def scribble(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.randint(1, 20)):
        begin = chance.randrange(len(data))
        size = chance.choice([1, 8, 512, 4096])
        data[begin : begin + size] = chance.randbytes(min(size, len(data) - begin))
    file.write_bytes(data)


def cut(file: Path, chance: random.Random) -> None:
    with file.open("r+b") as stream:
        stream.truncate(chance.randrange(file.stat().st_size))


@pytest.mark.parametrize("damage", [scribble, cut])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_damage_is_survived_or_told(
    home: Path,
    clock: ManualClock,
    row: MakeRow,
    damage: Callable[[Path, random.Random], None],
    seed: int,
) -> None:
    damage(home / "state.db", random.Random(seed))

    with contextlib.suppress(ApiError):
        state = State.open(home, clock)
        with contextlib.closing(state):
            for use in (
                state.sandboxes.living,
                state.templates.all,
                lambda: state.checkpoints.sweep(()),
                lambda: state.sandboxes.family("uid-s0"),
                lambda: state.sandboxes.end_reason("local", "s1"),
                lambda: state.sandboxes.begin([row("new")]),
            ):
                with contextlib.suppress(ApiError):
                    use()
            state.sandboxes.end(row("s0"), EndReason.TERMINATED)


def test_what_is_no_database_says_what_to_do(home: Path, clock: ManualClock) -> None:
    (home / "state.db").write_bytes(b"this is no database" * 1000)

    with pytest.raises(ApiError, match="could not be opened") as caught:
        State.open(home, clock)

    assert ("internal", 503) == (caught.value.code, caught.value.status)
    assert "not a database" in caught.value.cause


def test_a_write_that_the_crash_cut_short_has_not_happened(
    home: Path, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state = State.open(home, clock)
    state.sandboxes.begin([row("late")])
    torn = tmp_path / "torn"
    shutil.copytree(home, torn)
    state.close()
    log = torn / "state.db-wal"
    with log.open("r+b") as stream:
        stream.truncate(log.stat().st_size - 100)

    again = State.open(torn, clock)
    living = {each.id for each in again.sandboxes.living()}
    again.close()

    assert living == {f"s{number}" for number in range(0, ROWS, 3)}


def test_a_file_that_another_program_holds_is_not_waited_for(
    home: Path, clock: ManualClock, row: MakeRow
) -> None:
    state, other = State.open(home, clock), State.open(home, clock)
    with contextlib.closing(state), contextlib.closing(other):
        with other.database.transaction():
            started = time.monotonic()
            with pytest.raises(ApiError, match="could not be written") as caught:
                state.sandboxes.begin([row("new")])
            state.sandboxes.end(row("s0"), EndReason.TERMINATED)
            waited_s = time.monotonic() - started
        state.sandboxes.begin([row("next")])

        ids = {each.id for each in state.sandboxes.living()}

    assert ("internal", 503) == (caught.value.code, caught.value.status)
    assert "locked" in caught.value.cause
    assert waited_s < 2
    assert ("next" in ids, "new" in ids, "s0" in ids) == (True, False, False)
