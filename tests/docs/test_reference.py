"""The documentation names what exists, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mitos.node.end import EndReason, ended
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


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_of_a_sandbox_is_documented_as_the_server_says_it(reason: EndReason) -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    error = ended("ID", reason, memory_mib=512)

    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{reason.value}` |")]
    _, _, code, cause, remedy, _ = (cell.strip() for cell in row.split("|"))
    assert f"`{error.code}`" == code
    if error.cause:
        assert f"`{error.message}`" in page
        assert error.cause == cause.replace("N MiB", "512 MiB")
        assert error.remediation == remedy.replace("`", "")


def test_every_end_of_a_sandbox_is_a_reason_of_the_fork_tree() -> None:
    page = (ROOT / "spec/additions.md").read_text()

    (line,) = re.findall(r"^Reason +(.+)$", page, flags=re.MULTILINE)
    assert [f'"{reason.value}"' for reason in EndReason] == line.split(" | ")
