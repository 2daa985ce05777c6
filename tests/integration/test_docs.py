"""The Python of the README and the documentation, run block by block as a reader would.

The blocks of a file share their names. A comment behind an expression that is a value is what the
expression must give. Blocks that a program inside a sandbox runs are run there. The examples in the
docstrings of the public modules are run too, each with a sandbox of its own.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mitos
import mitos.daytona
import mitos.e2b
import mitos.guest
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

LOCAL = "http://127.0.0.1:8080"
ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSIDE = re.compile(r"^# inside a sandbox|mitos_kernel|mitos\.subagent", re.MULTILINE)
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if BLOCK.search(page.read_text()) and page.parent.name != "reference"
)


def _examples(module_name: str) -> Iterator[doctest.DocTest]:
    """The docstrings of a module's public names that have an example."""
    module = importlib.import_module(module_name)
    parser = doctest.DocTestParser()
    for name in module.__all__:
        value = getattr(module, name)
        members = inspect.getmembers(value, inspect.isroutine) if inspect.isclass(value) else []
        for title, member in [
            (name, value),
            *((f"{name}.{each}", found) for each, found in members),
        ]:
            text = (inspect.isclass(member) or inspect.isroutine(member)) and member.__doc__
            if text and ">>>" in text and "await" not in text and "._" not in title:
                names = dict(vars(module))
                yield parser.get_doctest(text, names, f"{module_name}.{title}", None, None)


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
    client.end_drain()
    client.create_template("python")
    server.end_sandboxes()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(server: Server, reader: Path, page: str) -> None:
    text = (ROOT / page).read_text().replace(LOCAL, server.url)
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


MODULES = (
    *("direct", "types", "errors", "pty", "background", "template", "git"),
    *("subagent", "e2b", "daytona"),
)
"""All that are not only for event loops, whose source is the same, or for inside a sandbox."""

EXAMPLES = [
    pytest.param(example, id=example.name)
    for name in MODULES
    for example in _examples(f"mitos.{name}")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_of_a_docstring_runs(
    server: Server, reader: Path, example: doctest.DocTest
) -> None:
    with server.create() as sandbox:
        sandbox.files.write("/workspace/plan.txt", "draft")
        (reader / "model.bin").write_bytes(b"model")
        for step in example.examples:
            step.source = step.source.replace(LOCAL, server.url)
            step.want = step.want.replace(LOCAL, server.url)
        example.globs |= {
            "mitos": mitos,
            "create": mitos.create,
            "sb": sandbox,
            "server": mitos.SandboxServer(server.url),
            "box": mitos.e2b.Sandbox(sandbox),
            "daytona": mitos.daytona.Daytona(),
            "machine": mitos.daytona.Sandbox(sandbox),
        }
        said: list[str] = []
        doctest.DocTestRunner(verbose=False).run(example, out=said.append)
        assert said == []
