"""What the distribution declares: its name, what it needs, and its extras."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mitos

PYPROJECT = Path(mitos.__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads(PYPROJECT.read_text())["project"])


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", each)[0] for each in requirements}


def test_the_distribution_is_named_and_licensed_as_published(project: dict[str, Any]) -> None:
    assert ("mitos-run", "Apache-2.0") == (project["name"], project["license"])
    assert ">=3.10" == project["requires-python"]
    assert mitos.__version__ == project["version"]
    assert {"Homepage", "Documentation", "Repository", "Issues"} == project["urls"].keys()
    for word in ("Python SDK", "Mitos", "snapshot-fork sandboxes", "AI agents", "Kubernetes"):
        assert word in project["description"]


def test_the_sdk_needs_two_libraries_and_nothing_else(project: dict[str, Any]) -> None:
    assert ["httpx>=0.27.0", "websocket-client>=1.7.0"] == project["dependencies"]


@pytest.mark.parametrize(
    ("extra", "libraries"),
    [
        ("k8s", {"kubernetes"}),
        ("langchain", {"langchain", "deepagents"}),
        ("openai-agents", {"openai-agents"}),
        ("claude-agent", {"claude-agent-sdk"}),
        ("vibekit", set()),
        ("zenml", {"zenml"}),
        ("async", {"websockets"}),
    ],
)
def test_an_extra_brings_what_it_names(
    project: dict[str, Any], extra: str, libraries: set[str]
) -> None:
    assert libraries == names(project["optional-dependencies"][extra])
