"""How the server's log looks in the journal, and elsewhere."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mitos.cli.log import JournalFormatter

DEADLINE_S = 15
CHILD = """
import logging
from mitos.cli import log
log.configure()
logging.getLogger("mitos.x").warning("one\\ntwo")
"""


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
    ],
)
def test_each_line_has_its_priority(level: int, priority: int) -> None:
    record = logging.LogRecord("mitos.x", level, "", 0, "%s\nand more", ("what",), None)

    first, second = JournalFormatter().format(record).split("\n")

    name = logging.getLevelName(level)
    assert f"<{priority}>level={name} logger=mitos.x what" == first
    assert f"<{priority}>and more" == second


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_gets_priorities_and_others_the_time(tmp_path: Path, is_journal: bool) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        journal = f"{found.st_dev}:{found.st_ino}" if is_journal else "1:1"
        subprocess.run(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "JOURNAL_STREAM": journal},
            stderr=stream,
            timeout=DEADLINE_S,
            check=True,
        )

    said = (tmp_path / "log").read_text()
    if is_journal:
        assert "<4>level=WARNING logger=mitos.x one\n<4>two\n" == said
    else:
        assert said.startswith("time=")
        assert "<" not in said
