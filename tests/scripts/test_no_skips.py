"""The plug-in that makes a skipped test fail a run, run as `scripts/test` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PASSING = "def test_fine(): pass\n"
SKIPPED = "import pytest\n@pytest.mark.skip(reason='no engine')\ndef test_skipped(): pass\n"
SKIPPED_WHOLE = "import pytest\npytest.skip('no engine', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_later(): assert False\n"


@pytest.mark.parametrize(
    ("more", "expected"),
    [(None, 0), (EXPECTED_FAILURE, 0), (SKIPPED, 1), (SKIPPED_WHOLE, 1)],
)
def test_a_skip_fails_the_run_and_is_counted(
    tmp_path: Path, more: str | None, expected: int
) -> None:
    (tmp_path / "test_passing.py").write_text(PASSING)
    if more is not None:
        (tmp_path / "test_more.py").write_text(more)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "tests.no_skips", "--rootdir", str(tmp_path)]

    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", tmp_path / "pytest.ini", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )

    assert result.returncode == expected, result.stdout
    assert ("1 tests were skipped on a machine where all can run" in result.stdout) == bool(
        expected
    )
