"""The examples, run as a user runs them, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(example: str, server: Server) -> str:
    """What an example prints."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / example],
        env={**os.environ, "MITOS_BASE_URL": server.url, "MITOS_API_KEY": ""},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "01_quickstart.py",
        "02_async.py",
        "03_best_of_n.py",
        "04_fork_inside.py",
    }


def test_quickstart(server: Server) -> None:
    run("01_quickstart.py", server)  # asserts for itself


def test_async(server: Server) -> None:
    assert "primes below 10000: 1229" in run("02_async.py", server)


def test_best_of_n(server: Server) -> None:
    printed = run("03_best_of_n.py", server)

    assert "before: 3 of 5" in printed
    assert 'promoted: "the library\'s"' in printed or "promoted: 'the library" in printed
    assert "modified" not in printed
    assert "/workspace/stats.py" in printed
    assert printed.count("Ended") == 8
    assert "after: 5 of 5" in printed


def test_fork_inside(server: Server) -> None:
    printed = run("04_fork_inside.py", server)

    assert printed.count("of 2262 primes") == 3
    assert printed.count("Ended") == 3
