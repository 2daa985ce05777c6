"""The public surface as a type checker sees it from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_user_code_checks_strictly() -> None:
    """Also unneeded ignores are errors: what must be refused is refused."""
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "tests/typing/user_code.py"]

    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        env={"MYPYPATH": "src"},
    )

    assert 0 == done.returncode, done.stdout + done.stderr
