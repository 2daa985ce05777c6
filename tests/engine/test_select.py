"""The door: every engine is found, opened and asked by name, and nothing above it knows one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mitos.engine
from mitos.engine import select
from mitos.engine.kind import EngineSettings
from mitos.engine.select import UnknownEngineError

ENGINES = Path(mitos.engine.__file__).parent
SOURCE = ENGINES.parent


def sources_outside_engines() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if not path.is_relative_to(ENGINES)]


def modules_loaded_by(program: str) -> set[str]:
    """The modules that a Python of its own has loaded at the end of a program."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=15,
        check=True,
    )
    return set(ended.stdout.split())


def test_every_folder_of_an_engine_is_listed() -> None:
    folders = {path.parent.name for path in ENGINES.glob("*/__init__.py")}

    assert folders == set(select.names())


@pytest.mark.parametrize("name", select.names())
def test_an_engine_is_what_its_kind_says(name: str, tmp_path: Path) -> None:
    kind = select.find(name)

    engine = kind.open(EngineSettings(tmp_path / "home"))

    assert name == kind.name == engine.name
    assert engine.facts == kind.facts
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", select.names())
async def test_an_engine_looks_at_a_machine_without_leaving_a_trace(
    name: str, tmp_path: Path
) -> None:
    probe = await select.find(name).open(EngineSettings(tmp_path / "home")).probe()

    assert probe.engine == name
    assert probe.checks
    assert not (tmp_path / "home").exists()


def test_auto_is_one_of_the_engines() -> None:
    assert select.resolve(select.AUTO) in select.names()
    assert select.find(select.AUTO) is select.find(select.resolve(select.AUTO))
    assert select.AUTO not in select.names()


@pytest.mark.parametrize("name", select.names())
def test_a_name_means_itself(name: str) -> None:
    assert select.resolve(name) == name


@pytest.mark.parametrize("name", ["", "qemu", "Fake", "base", "../fake", "fake.kind"])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    for ask in (select.resolve, select.find):
        with pytest.raises(UnknownEngineError, match=re.escape(repr(name))) as caught:
            ask(name)
        assert all(known in str(caught.value) for known in (select.AUTO, *select.names()))


@pytest.mark.parametrize("name", select.names())
def test_the_other_engines_are_not_loaded(name: str) -> None:
    loaded = modules_loaded_by(f"from mitos.engine import select\nselect.find({name!r})")

    engines = {other for other in select.names() if f"mitos.engine.{other}" in loaded}
    assert engines == {name}


def test_the_command_line_loads_no_engine() -> None:
    loaded = modules_loaded_by("import mitos.cli.serve, mitos.cli.doctor")

    assert not [name for name in select.names() if f"mitos.engine.{name}" in loaded]


def test_nothing_outside_names_a_real_engine() -> None:
    words = re.compile(r"gvisor|runsc", re.IGNORECASE)

    found = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in sources_outside_engines()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]

    assert found == []


def test_nothing_outside_imports_an_engine() -> None:
    forbidden = tuple(f"mitos.engine.{name}" for name in select.names())

    found = [
        f"{path.relative_to(SOURCE)}: {module}"
        for path in sources_outside_engines()
        for module in imported_by(path)
        if module.startswith(forbidden)
    ]

    assert found == []


def imported_by(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found
