"""A home of the server before schema versions opens, and nothing of it is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.phase import Phase
from mitos.node.state.database import Database
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.conftest import StartNode

FIRST_SCHEMA = Path(__file__).parent / "first_schema.sql"
THEN = 1_795_680_310.0
ASLEEP, CHILD = "05887a3b023d0ffd", "4bc0b61a81d2d4a7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(THEN)


@pytest.fixture
def old_home(tmp_path: Path, engine: FakeEngine) -> Path:
    """The old database, and the files that it names."""
    home = tmp_path / "home"
    home.mkdir()
    script = FIRST_SCHEMA.read_text()
    script = script.replace("@HOME@", str(home)).replace("@FORMAT@", engine.snapshot_format)
    database = sqlite3.connect(home / "state.db")
    database.executescript(script)
    database.close()
    for folder in (
        *("rootfs/a68f217e9f463c149f065591b1423fd4", "guest/f0e2b7b7fb4878aecf11a11d"),
        *(f"hibernated/{ASLEEP}/snapshot", f"hibernated/{CHILD}/snapshot"),
        "checkpoints/cp-407171ed2fe1/snapshot",
    ):
        (home / folder).mkdir(parents=True)
    return home


def tables(path: Path) -> set[str]:
    database = sqlite3.connect(path)
    found = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    return {name for name in found if not name.startswith("sqlite_")}


async def test_an_old_homes_sandboxes_are_all_accounted_for(
    old_home: Path, start_node: StartNode, engine: FakeEngine
) -> None:
    node = await start_node()

    listed = {record.id: record for record in node.list_sandboxes()}
    assert {"asleep": None, "child": "asleep"} == {k: r.parent_id for k, r in listed.items()}
    assert {Phase.HIBERNATED} == {record.phase for record in listed.values()}
    assert 500 < node._parts.registry.find("local", "asleep").row.remaining_s <= 600  # type: ignore[operator]
    assert ["first"] == [kept.name for kept in node.list_checkpoints("child")]
    family = {relative.id: relative.reason for relative in node.family("child")}
    assert {"asleep": None, "child": None, "other": "server_stopped"} == family
    for name, code, cause in (
        ("other", "not_found", "its server was stopped"),
        ("running", "not_found", "its server was stopped"),
        ("reaped", "idle_timeout", ""),
        ("ended", "not_found", "it was terminated"),
    ):
        with pytest.raises(ApiError) as caught:
            node.agent(name)
        assert (code, cause) == (caught.value.code, caught.value.cause)


def test_an_old_homes_templates_and_keys_are_the_local_owners(
    old_home: Path, clock: ManualClock
) -> None:
    state = State.open(old_home, clock)

    rows = {row.id: row for row in state.templates.all()}
    keys = state.database.query("SELECT owner, key, kind, resources FROM idempotency")
    state.close()

    assert {"python", "base"} == set(rows)
    assert {"local"} == {row.owner for row in rows.values()}
    assert ("example.com:443",) == rows["base"].network.allow_domains
    assert 1024 == rows["base"].resources.memory_mib
    assert ("python",) == rows["base"].warm_up.kernels
    assert [("local", "k1", "fork", '["asleep"]')] == keys


def test_an_old_and_a_new_file_have_the_same_schema(old_home: Path, tmp_path: Path) -> None:
    Database(tmp_path / "new.db").close()
    Database(old_home / "state.db").close()

    assert tables(tmp_path / "new.db") == tables(old_home / "state.db")


def test_a_migration_that_fails_leaves_the_old_file(
    old_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old_home / "state.db"
    before = tables(path)

    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("mitos.node.state.migration._take_over_the_rest", fail)
    with pytest.raises(ApiError) as caught:
        Database(path)
    monkeypatch.undo()

    assert ("internal", 503) == (caught.value.code, caught.value.status)
    assert before == tables(path)
    Database(path).close()


def test_the_file_of_a_later_server_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "state.db").close()
    database = sqlite3.connect(tmp_path / "state.db")
    database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(ApiError) as caught:
        Database(tmp_path / "state.db")

    assert "99" in caught.value.message
    assert "--home" in caught.value.remediation


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(ApiError) as caught:
        Database(tmp_path / "state.db")

    assert ("internal", 503) == (caught.value.code, caught.value.status)
