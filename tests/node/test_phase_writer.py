"""A sandbox's phase has one writer: nothing else in the node sets it, by whatever means."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mitos.node

NODE = Path(mitos.node.__file__).parent
WRITER = NODE / "lifecycle" / "lifecycle.py"
GUARDED = {"phase", "row"}
"""The phase is a member of the row; whoever replaces the row sets the phase."""


def setters(tree: ast.AST) -> list[int]:
    """The lines that set a guarded attribute, or copy a value with another phase."""
    return sorted({node.lineno for node in ast.walk(tree) if _sets(node)})  # type: ignore[attr-defined]


def _sets(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()):
            return name in GUARDED
        case ast.Call(func=function, args=arguments, keywords=keywords):
            named = _name(function)
            if named in ("setattr", "__setattr__", "delattr"):
                return any(isinstance(a, ast.Constant) and a.value in GUARDED for a in arguments)
            return named in ("replace", "__replace__") and any(k.arg == "phase" for k in keywords)
    return False


def _name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


@pytest.mark.parametrize(
    "text",
    [
        "sandbox.phase = READY",
        "sandbox.row = row",
        "sandbox.phase: Phase = READY",
        "a, sandbox.phase = 1, READY",
        "for sandbox.phase in phases: pass",
        "with x as sandbox.row: pass",
        "replace(row, phase=READY)",
        "dataclasses.replace(row, id='x', phase=READY)",
        "setattr(sandbox, 'phase', READY)",
        "object.__setattr__(row, 'phase', READY)",
        "del sandbox.row",
    ],
)
def test_the_check_knows_a_setter(text: str) -> None:
    assert [1] == setters(ast.parse(text))


def test_reading_is_no_setting() -> None:
    assert [] == setters(ast.parse("x = sandbox.phase\nreplace(row, id=x)\nRow(phase=x)"))


def test_only_the_lifecycle_sets_a_phase() -> None:
    found = {
        str(file.relative_to(NODE)): lines
        for file in sorted(NODE.rglob("*.py"))
        if file != WRITER and (lines := setters(ast.parse(file.read_text())))
    }

    # A new sandbox is given the row it begins with.
    assert ["lifecycle/sandbox.py"] == list(found)
    (line,) = found["lifecycle/sandbox.py"]
    assert (
        "self.row = row" in (NODE / "lifecycle" / "sandbox.py").read_text().splitlines()[line - 1]
    )
    assert setters(ast.parse(WRITER.read_text()))
