from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mitos.cli.template import template


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    (tmp_path / "templates.toml").write_text(
        '[templates.mine]\nrootfs = "source"\n[templates.lost]\nrootfs = "nowhere.tar"\n'
    )
    return tmp_path


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(template, [*arguments, "--home", str(home)])


def test_listing_shows_what_is_built_and_what_cannot_be(home: Path) -> None:
    assert run(home, "build", "mine").exit_code == 0

    result = run(home, "ls", "--output", "json")

    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows.keys() == {"base", "data", "lost", "mine", "node", "python"}
    assert rows["mine"]["built"]
    assert not rows["python"]["built"]
    assert "nowhere.tar" in rows["lost"]["problem"]


def test_the_table_names_every_template(home: Path) -> None:
    result = run(home, "ls")

    assert result.exit_code == 0
    assert {"base", "mine", "python"} <= set(result.stdout.split())


def test_building_shows_its_steps_on_standard_error(home: Path) -> None:
    result = run(home, "build", "mine")

    assert "mine: copying" in result.stderr
    assert "mine: ready" in result.stderr
    assert result.stdout == ""


def test_a_failing_build_says_why_and_exits_1(home: Path) -> None:
    result = run(home, "build", "lost")

    assert result.exit_code == 1
    assert "nowhere.tar" in result.stderr


def test_an_unknown_name_is_answered_with_the_known_ones(home: Path) -> None:
    result = run(home, "build", "nope")

    assert result.exit_code == 1
    assert "base, data, lost, mine, node, python" in result.stderr


def test_a_name_is_required(home: Path) -> None:
    assert run(home, "build").exit_code == 2


def test_building_fresh_builds_again(home: Path) -> None:
    run(home, "build", "mine")

    again = run(home, "build", "mine")
    fresh = run(home, "build", "mine", "--fresh")

    assert "copying" not in again.stderr
    assert "copying" in fresh.stderr
