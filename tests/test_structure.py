"""The size of the source: a file that is large has two things in it."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
MOST_LINES = 400
MEDIAN_LINES = 150
LARGER = {Path("mitos/wire/link.py")}
"""The whole codec of one protocol, in one place to be read beside the specification."""


def lines_of_files() -> dict[Path, int]:
    """The hand-written files; the synchronous SDK counts, though it is generated."""
    return {
        path.relative_to(SOURCE): len(path.read_text().splitlines())
        for path in SOURCE.rglob("*.py")
        if "_generated" not in path.parts
    }


def test_no_file_is_large() -> None:
    large = {path for path, lines in lines_of_files().items() if lines > MOST_LINES}

    assert large == LARGER


def test_most_files_are_small() -> None:
    assert statistics.median(lines_of_files().values()) <= MEDIAN_LINES


def test_docstrings_name_files_that_exist() -> None:
    root = SOURCE.parent
    paths = [f"/{path.relative_to(root)}" for path in root.glob("[!.]*/**/*.py")]
    named = {
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        for name in re.findall(
            r"\w[\w/]*\.py\b", ast.get_docstring(ast.parse(path.read_text())) or ""
        )
    }

    gone = {each for each in named if not any(path.endswith(f"/{each[1]}") for path in paths)}
    assert len(named) > 80
    assert gone == set()
