"""Each promise of what survives what is kept by a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/promises.md"

_LINK = re.compile(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)")
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| **")]


def test_there_are_promises() -> None:
    assert len(ROWS) >= 5


@pytest.mark.parametrize("row", ROWS, ids=[row.split("**")[1] for row in ROWS])
def test_it_names_the_test_that_keeps_it(row: str) -> None:
    links = _LINK.findall(row)

    assert links
    for name, path in links:
        functions = ast.walk(ast.parse((ROOT / path).read_text()))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {each.name for each in functions if isinstance(each, kinds)}
