"""`scripts/changelog`: what a fragment must be, and what becomes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(60)

HEAD = "# Changelog\n\n<!-- release notes start -->\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of version 0.4.0 without fragments, in which nothing was released yet."""
    for name in ("scripts", "changelog.d"):
        (tmp_path / name).mkdir()
    for name in ("scripts/changelog", "changelog.d/template.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    set_version(tmp_path, "0.4.0")
    (tmp_path / "CHANGELOG.md").write_text(HEAD)
    return tmp_path


def set_version(tree: Path, version: str) -> None:
    _, mark, settings = (ROOT / "pyproject.toml").read_text().partition("[tool.towncrier]")
    settings, _, _ = settings.partition("[tool.pytest")
    project = f'[project]\nname = "x"\nversion = "{version}"\n'
    (tree / "pyproject.toml").write_text(f"{project}{mark}{settings}")


def add(tree: Path, name: str, text: str) -> None:
    (tree / "changelog.d" / name).write_text(text)


def changelog(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, tree / "scripts/changelog", *arguments],
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )


def build(tree: Path, *arguments: str) -> str:
    result = changelog(tree, *arguments)
    assert result.returncode == 0, result.stderr
    return (tree / "CHANGELOG.md").read_text()


def test_fragments_become_entries_sorted_by_type_and_name(tree: Path) -> None:
    add(tree, "wake.fixed.md", "A sandbox wakes.\n")
    add(tree, "zip.added.md", "Archives\nof two lines.\n")
    add(tree, "key.security.md", "A key is not shown.\n")
    add(tree, "fork.added.md", "- Forks.\n- Trees\n  of forks.\n")

    text = build(tree)

    assert text == (
        f"{HEAD}\n## 0.4.0 (not released yet)\n"
        "\n### Security\n\n- A key is not shown.\n"
        "\n### Added\n\n- Forks.\n- Trees\n  of forks.\n- Archives\n  of two lines.\n"
        "\n### Fixed\n\n- A sandbox wakes.\n"
    )


def test_building_again_changes_nothing(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")

    assert build(tree) == build(tree)


def test_what_was_written_into_the_coming_section_by_hand_goes(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")
    wanted = build(tree)
    (tree / "CHANGELOG.md").write_text(wanted.replace("- Forks.", "<<<<<<< ours\n- Spoons."))

    assert wanted == build(tree)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("fork.improved.md", "Forks.", "'improved' is no type; use one of security, removed, "),
        ("fork.md", "Forks.", "its name must be NAME.TYPE.md"),
        ("added.fork.md", "Forks.", "'fork' is no type"),
        ("fork.added.txt", "Forks.", "its name must be NAME.TYPE.md"),
        ("fork.added.md~", "Forks.", "its name must be NAME.TYPE.md"),
        ("My fork.added.md", "Forks.", "its name must be NAME.TYPE.md"),
        (".added.md", "Forks.", "its name must be NAME.TYPE.md"),
        ("fork.added.md", "", "a full stop at the end"),
        ("fork.added.md", "Forks", "a full stop at the end: 'Forks'"),
        ("fork.added.md", "- Forks.\n- Trees\n", "a full stop at the end: 'Trees'"),
        ("fork.added.md", "# Forks\nThere are some.", "no headings"),
        ("fork.added.md", "Forks.\n\nAnd trees.", "no empty lines"),
    ],
)
def test_a_fragment_that_is_not_well_formed_fails_the_check_and_the_build(
    tree: Path, name: str, text: str, said: str
) -> None:
    add(tree, name, text)

    for arguments in (["--check"], []):
        result = changelog(tree, *arguments)
        assert result.returncode == 1
        assert f"changelog.d/{name}: " in result.stderr
        assert said in result.stderr
    assert (tree / "CHANGELOG.md").read_text() == HEAD


def test_a_fragment_that_is_not_text_fails_the_check(tree: Path) -> None:
    (tree / "changelog.d/fork.added.md").write_bytes(b"\xff.")

    result = changelog(tree, "--check")

    assert result.returncode == 1
    assert "changelog.d/fork.added.md: it cannot be read" in result.stderr


def test_the_check_fails_while_the_file_is_not_what_the_fragments_say(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")

    assert changelog(tree, "--check").returncode == 1
    build(tree)
    assert changelog(tree, "--check").returncode == 0


def test_a_release_is_dated_and_has_used_up_its_fragments(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")
    build(tree)

    text = build(tree, "--release", "2030-01-02")

    assert text == f"{HEAD}\n## 0.4.0 (2030-01-02)\n\n### Added\n\n- Forks.\n"
    assert [path.name for path in (tree / "changelog.d").iterdir()] == ["template.md"]
    assert changelog(tree, "--check").returncode == 0


def test_the_next_version_goes_above_and_the_released_one_stays(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")
    released = build(tree, "--release", "2030-01-02").removeprefix(HEAD)
    set_version(tree, "0.5.0")
    add(tree, "tree.added.md", "Trees.\n")

    coming = build(tree)
    assert coming == f"{HEAD}\n## 0.5.0 (not released yet)\n\n### Added\n\n- Trees.\n{released}"
    assert build(tree, "--release", "2030-02-03") == coming.replace(
        "not released yet", "2030-02-03"
    )


def test_a_released_version_gets_no_more_entries(tree: Path) -> None:
    add(tree, "fork.added.md", "Forks.\n")
    released = build(tree, "--release", "2030-01-02")
    add(tree, "tree.added.md", "Trees.\n")

    result = changelog(tree)

    assert result.returncode == 1
    assert "0.4.0 is released; raise the version in pyproject.toml" in result.stderr
    assert (tree / "CHANGELOG.md").read_text() == released


def test_help_says_what_it_does(tree: Path) -> None:
    result = changelog(tree, "--help")

    assert result.returncode == 0
    assert "--release DATE   gives the section its date" in result.stdout
