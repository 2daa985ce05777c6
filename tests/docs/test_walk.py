"""The walk through adding an RPC in docs/architecture.md, applied to a copy of the tree and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
HEADING = "## Add an RPC, step by step\n"
MOST_STEPS = 14

_STEP = re.compile(r"^\d+\. ", re.MULTILINE)
_BLOCK = re.compile(r"^```(diff|sh)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What one step says to do: change a file, or run commands."""

    kind: str
    path: str
    text: str


def walk() -> str:
    _, _, text = PAGE.read_text().partition(HEADING)
    return text.partition("\n## ")[0]


def blocks() -> list[Block]:
    return [Block(kind, path or "", text) for kind, path, text in _BLOCK.findall(walk())]


def apply(tree: Path, block: Block) -> None:
    """Changes a file as a diff without line numbers says; the lines it names must be there once."""
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    file = tree / block.path
    text = file.read_text() if file.exists() else ""
    assert text.count(before) == 1 if before else not file.exists(), f"{block.path}:\n{before}"
    file.write_text(text.replace(before, after) if before else after)


def copy(target: Path) -> Path:
    """The files of the repository, with the environment and caches of this one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    built = "src/mitos/_guest"
    shutil.copytree(ROOT / built, target / built, dirs_exist_ok=True)
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", target / ".mypy_cache")
    (target / ".venv").symlink_to(ROOT / ".venv")
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)  # what is ignored stays ignored
    return target


def test_it_is_short() -> None:
    assert 5 <= len(_STEP.findall(walk())) <= MOST_STEPS
    assert len(blocks()) >= len(_STEP.findall(walk()))


@pytest.mark.timeout(600)
def test_its_steps_lead_to_a_call_that_works(tmp_path: Path) -> None:
    tree = copy(tmp_path / "tree")
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    for block in blocks():
        if block.kind == "diff":
            apply(tree, block)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
