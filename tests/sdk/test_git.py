"""Repositories of a workspace: what is understood, what is refused, and that no secret is told."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import mitos
from mitos.errors import AgentRunError
from mitos.git import GitSpec, coerce_git, git


def test_paths_alone() -> None:
    assert git(["/a", "/b"]).to_spec() == {"paths": ["/a", "/b"]}


def test_credentials_are_named_not_told() -> None:
    spec = git(("/a",), credentials_secret=("token", "password"), credentials_username="bot")

    assert spec.to_spec() == {
        "paths": ["/a"],
        "credentialsSecretRef": {"name": "token", "key": "password"},
        "credentialsUsername": "bot",
    }


@pytest.mark.parametrize("paths", [[], "/a", [""], ["/a", " "], [1], None, {"/a": 1}])
def test_bad_paths(paths: Any) -> None:
    with pytest.raises(AgentRunError) as caught:
        GitSpec(paths)
    assert "invalid_git_paths" == caught.value.code


@pytest.mark.parametrize(
    ("secret", "username"),
    [("hunter2", None), (("hunter2",), None), (("hunter2", ""), None), (None, "hunter2"),
     (("a", "b"), " "), (("a", "hunter2", "c"), None), ((1, 2), None)],
)  # fmt: skip
def test_bad_credentials_are_not_repeated(secret: Any, username: Any) -> None:
    with pytest.raises(AgentRunError) as caught:
        git(["/a"], credentials_secret=secret, credentials_username=username)
    assert "invalid_git_credentials" == caught.value.code
    assert "hunter2" not in str(caught.value)


def test_a_list_is_taken_for_paths() -> None:
    spec = git(["/a"])

    assert coerce_git(spec) is spec
    assert coerce_git(["/a"]) == coerce_git(("/a",)) == spec


@pytest.mark.parametrize("value", ["/a", None, 1, {"paths": ["/a"]}])
def test_anything_else_is_no_spec(value: object) -> None:
    with pytest.raises(AgentRunError) as caught:
        coerce_git(value)
    assert "invalid_git_spec" == caught.value.code


def test_the_name_is_the_function_whatever_was_imported_before() -> None:
    for first in ("import mitos", "import mitos.git", "from mitos.git import GitSpec"):
        program = f"{first}\nimport mitos\nassert callable(mitos.git), mitos.git"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    assert mitos.GitSpec is GitSpec
