"""The Go module of the engine: its own tests, and that all places name the same release."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mitos.engine.gvisor import release
from mitos.engine.gvisor.release import Release

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # fetches a Go where the machine has none
def test_the_collectors_own_tests_pass() -> None:
    ended = subprocess.run(
        [ROOT / "scripts/build-engine", "--test"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ok" in ended.stdout


def test_all_places_name_one_release() -> None:
    required = re.search(r"gvisor v0\.0\.0-(\d{8})", (ROOT / "engine/go.mod").read_text())
    assert required is not None
    date = required[1]
    own = tomllib.loads((ROOT / "engine/pyproject.toml").read_text())["project"]["version"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    assert own.partition(".")[0] == date
    assert f"mitos-engine=={date}.*; sys_platform == 'linux'" in extras["server"]
    assert Release(int(date), 0, is_own=True).is_known
    assert release.parse(f"runsc version mitos-{date}.0") == Release(int(date), 0, is_own=True)
