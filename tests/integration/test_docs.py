"""The Python of the README and the documentation, run block by block as a reader would.

The blocks of a file share their names. A comment behind an expression that is a value is what the
expression must give. Blocks that a program inside a sandbox runs are run there.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import mitos
import mitos.guest
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSIDE = re.compile(r"^# inside a sandbox|mitos_kernel|mitos\.subagent", re.MULTILINE)
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if BLOCK.search(page.read_text()) and page.parent.name != "reference"
)


@pytest.fixture
def reader(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, and an environment that leads to the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MITOS_BASE_URL", server.url)
    monkeypatch.setenv("MITOS_API_KEY", "")
    (tmp_path / "project/deep").mkdir(parents=True)
    (tmp_path / "project/deep/file").write_text("x")
    (tmp_path / "big.bin").write_bytes(bytes(5_000_000))
    yield tmp_path
    client = mitos.SandboxServer(server.url)
    client.create_template("python")
    for row in client.list_sandboxes():
        httpx.delete(f"{server.url}/v1/sandboxes/{row['id']}").raise_for_status()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(server: Server, reader: Path, page: str) -> None:
    text = (ROOT / page).read_text().replace("http://127.0.0.1:8080", server.url)
    blocks = BLOCK.findall(text)
    names: dict[str, Any] = {"mitos": mitos}
    if not re.search(r"^sb = |as sandbox", blocks[0], re.MULTILINE):
        names["sb"] = mitos.create("python")
        names["sb"].exec("mkdir -p project/out")
    for block in blocks:
        if INSIDE.search(block):
            _run_inside(block)
        else:
            _run(block, names, page)


def _run(block: str, names: dict[str, Any], page: str) -> None:
    """Runs a block's statements, and checks the values that its comments name."""
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), page, "exec"), names)
            continue
        found = eval(compile(ast.Expression(statement.value), page, "eval"), names)
        _, _, comment = lines[(statement.end_lineno or 1) - 1].partition("  # ")
        with contextlib.suppress(ValueError, SyntaxError):
            assert found == ast.literal_eval(comment), ast.unparse(statement)


def _run_inside(block: str) -> None:
    """Runs a block as a cell, with the self-service client where `pip` would have put it."""
    with mitos.create("python") as sandbox:
        package = Path(mitos.guest.__file__).parent
        sandbox.files.write("/workspace/mitos/__init__.py", "")
        for name in ("guest", "subagent"):
            sandbox.files.write(f"/workspace/mitos/{name}.py", (package / f"{name}.py").read_text())
        sandbox.run_code("import mitos_kernel; connect = object")
        assert sandbox.run_code(block).error is None
