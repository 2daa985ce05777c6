"""What the import contracts say of a module that nobody has named in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BY_EXCLUSION = "The SDK never imports the server side"
LIBRARIES = "The SDK never imports a library of the server side"
INSIDE = "The inside of the SDK knows no public module but the errors"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, and the contracts for it."""
    folder = tmp_path_factory.mktemp("contracts")
    is_no_source = shutil.ignore_patterns("__pycache__", "_guest")
    shutil.copytree(ROOT / "src" / "mitos", folder / "mitos", ignore=is_no_source)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def tree(copied: Path) -> Iterator[Path]:
    """The package of the copy, without what another test has added."""
    before = set(copied.rglob("*.py"))
    yield copied / "mitos"
    for path in set(copied.rglob("*.py")) - before:
        path.unlink()


def lint(tree: Path) -> tuple[int, str]:
    """Checks the contracts; the exit code, and what was said, on one line."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree.parent,
        env={**os.environ, "PYTHONPATH": str(tree.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("path", "source", "contract"),
    [
        ("added.py", "import mitos.server.app", BY_EXCLUSION),
        ("added.py", "from mitos import node", BY_EXCLUSION),
        ("added.py", "def f():\n    from mitos.engine.base import Engine", BY_EXCLUSION),
        ("added.py", "import mitos.wire._generated.sandbox.v1.sandbox_pb", BY_EXCLUSION),
        ("added/inner.py", "from mitos.host import process", BY_EXCLUSION),
        ("_sdk/_async/added.py", "import mitos.images.store", BY_EXCLUSION),
        ("added.py", "import starlette", LIBRARIES),
        ("_sdk/added.py", "import connectrpc.client", LIBRARIES),
        ("_sdk/added.py", "import mitos.direct", INSIDE),
    ],
)
def test_a_new_module_is_held_to_them(tree: Path, path: str, source: str, contract: str) -> None:
    added = tree / path
    added.parent.mkdir(exist_ok=True)
    if added.parent != tree:
        (added.parent / "__init__.py").touch()
    added.write_text(source + "\n")

    code, said = lint(tree)

    assert 1 == code
    assert f"{contract} BROKEN" in said
    assert "mitos." + path.removesuffix(".py").replace("/", ".") in said


def test_a_new_module_that_keeps_them_is_fine(tree: Path) -> None:
    (tree / "added.py").write_text("import httpx\nimport mitos.direct\nimport mitos.errors\n")
    (tree / "_sdk" / "added.py").write_text("import mitos.errors\nfrom mitos.wire import ids\n")

    code, said = lint(tree)

    assert 0 == code, said
    assert "0 broken" in said
