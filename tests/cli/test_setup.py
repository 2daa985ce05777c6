"""Setting up what wheels cannot bring: installed where that is possible, else said in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.cli import examination
from mitos.cli.examination import Status
from mitos.cli.setup import set_up
from mitos.host import process
from mitos.images import tools
from mitos.images.tools import Tool

LACKING = [Tool("no-such-program", "first", "less"), Tool("/no/such/file", "second", "less")]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told, on a machine where both tools are missing and can be installed."""
    monkeypatch.setattr(tools, "TOOLS", tuple(LACKING))
    monkeypatch.setattr(tools, "can_install", lambda: True)
    return []


def test_a_tool_is_a_program_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    assert Tool("sh", "dash", "").find()
    assert Tool(str(file), "x", "").find() == str(file)
    assert [tool.find() for tool in LACKING] == [None, None]


async def test_nothing_is_said_where_nothing_is_missing(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "TOOLS", (Tool("sh", "dash", ""),))

    await set_up(said.append)

    assert said == []


async def test_what_is_missing_is_installed_and_said(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []

    async def install(lacking: list[Tool]) -> None:
        installed.extend(tool.package for tool in lacking)

    monkeypatch.setattr(tools, "install", install)

    await set_up(said.append)

    assert installed == ["first", "second"]
    assert said == ["installing first second, once (apt-get)"]


async def test_who_may_not_install_is_told_the_command(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "can_install", lambda: False)

    await set_up(said.append)

    assert len(said) == 1
    assert said[0].endswith("Run as root: apt-get install -y first second")


async def test_an_installation_that_fails_is_no_failure_of_the_server(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: list[Tool]) -> None:
        raise process.CommandError("no network")

    monkeypatch.setattr(tools, "install", fail)

    await set_up(said.append)

    assert "no network" in said[1]
    assert said[2] == "run as root: apt-get install -y first second"


def test_the_doctor_names_the_package() -> None:
    check = examination.check_tool(LACKING[1])

    assert check.status is Status.WARN
    assert check.name == "file"
    assert check.remediation == "Run: apt-get install -y second"
