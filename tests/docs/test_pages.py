"""The pages of the repository find each other, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INDEX = ROOT / "docs/README.md"
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted(ROOT.glob("spec/*.md"))]

NAMED_PATH = re.compile(r"`((?:bench|docs|examples|guest|scripts|spec|src|tests)/[\w./-]+)")


def of_each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda p: str(p.relative_to(ROOT)))


def links(page: Path) -> list[tuple[Path, str]]:
    """Where the links of a page lead in the repository: a file or folder, and an anchor in it."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if ":" not in target]
    parts = [target.partition("#") for target in targets]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get where it is shown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words}


@of_each([page for page in DOCS if page != INDEX])
def test_the_index_lists_every_page(page: Path) -> None:
    assert page in [target for target, _ in links(INDEX)], f"list it in {INDEX.relative_to(ROOT)}"


@of_each(PAGES)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading {anchor}"


@of_each([page for page in PAGES if page.name != "CHANGELOG.md"])
def test_paths_that_a_page_names_are_there(page: Path) -> None:
    for path in NAMED_PATH.findall(page.read_text()):
        is_placeholder = re.search(r"NAME|NNNN", path)
        assert is_placeholder or (ROOT / path.rstrip(".")).exists(), f"{page.name} names {path}"
