"""The documentation names what exists, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mitos.wire.errors import TABLE

ROOT = Path(__file__).parents[2]


def test_every_error_code_is_documented_as_the_table_has_it() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()

    for row in TABLE.values():
        assert f"| `{row.code}` | {row.status} | `{row.connect.value}` |" in page
        assert row.remediation in page


def test_the_fork_correctness_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs/fork-correctness.md").read_text()
    source = (ROOT / "tests/integration/test_fork_correctness.py").read_text()

    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in source, name


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
