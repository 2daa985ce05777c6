"""`scripts/install --check` on machines that lack something; installing is for `scripts/test`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A source tree in which nothing was installed yet."""
    tree = tmp_path / "tree"
    (tree / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/install", tree / "scripts/install")
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def install(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "scripts/install", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_checking_a_bare_checkout_names_everything_and_changes_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    before = sorted(checkout.rglob("*"))

    result = install(checkout, "--check", MITOS_HOME=str(tmp_path / "home"))

    assert result.returncode == 1
    assert "missing: the environment .venv" in result.stderr
    assert "missing: the guest agent's build" in result.stderr
    assert f"missing: runsc 20240729 or later at {tmp_path}/home/bin/runsc" in result.stderr
    assert before == sorted(checkout.rglob("*"))
    assert not (tmp_path / "home").exists()


def test_a_missing_python_is_named_with_the_command_that_installs_it(
    checkout: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "id", "uname", "sha256sum", "cut", "sed"):
        (programs / name).symlink_to(str(shutil.which(name)))

    result = install(checkout, "--check", PATH=str(programs), MITOS_PYTHON="")

    assert result.returncode == 1
    assert "missing: Python 3.11 or later with venv" in result.stderr
    assert "apt-get install -y python3 python3-venv" in result.stderr


@pytest.mark.parametrize(
    ("said", "is_enough"),
    [
        ("runsc version release-20221219.0", False),
        ("runsc version 0.0~20240729.0", True),
        ("runsc version release-20250101.0", True),
        ("nonsense", False),
    ],
)
def test_a_runsc_that_is_too_old_counts_as_missing(
    checkout: Path, tmp_path: Path, said: str, is_enough: bool
) -> None:
    binary = tmp_path / "home/bin/runsc"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho '{said}'\n")
    binary.chmod(0o755)

    result = install(checkout, "--check", MITOS_HOME=str(tmp_path / "home"))

    assert ("missing: runsc" not in result.stderr) == is_enough


def test_an_environment_made_from_another_pyproject_counts_as_missing(checkout: Path) -> None:
    bin_folder = checkout / ".venv/bin"
    bin_folder.mkdir(parents=True)
    for name in ("python", "mitos"):
        (bin_folder / name).write_text("#!/bin/sh\nexit 0\n")
        (bin_folder / name).chmod(0o755)
    (checkout / ".venv/.mitos-server").write_text("another\n")

    result = install(checkout, "--check")

    assert "missing: the environment .venv" in result.stderr


def test_an_unknown_argument_is_wrong_usage(checkout: Path) -> None:
    assert install(checkout, "--chekc").returncode == 2


def test_help_says_what_it_does(checkout: Path) -> None:
    result = install(checkout, "--help")

    assert result.returncode == 0
    assert "--check" in result.stdout
