"""`python -m mitos.engine.install`: the installer of whichever engine is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mitos.engine import install, select
from mitos.engine.kind import EngineKind, EngineSettings, InstallError


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the program with an installer of the test's own in place of the engine's."""

    def run(outcome: Exception | None, *arguments: str) -> int:
        async def fetch(settings: EngineSettings) -> Path:
            if outcome is not None:
                raise outcome
            settings.home.mkdir()
            (settings.home / "program").touch()
            return settings.home / "program"

        def find(name: str) -> EngineKind:
            kind = known(name)
            return dataclasses.replace(kind, install=kind.install and fetch)

        known = select.find
        monkeypatch.setattr(install.select, "find", find)
        monkeypatch.setattr("sys.argv", ["install", "--home", str(tmp_path / "home"), *arguments])
        return install.main()

    return run


def test_the_program_is_put_into_the_home(ask, tmp_path: Path, capsys) -> None:
    assert ask(None) == 0
    assert (tmp_path / "home/program").exists()
    assert str(tmp_path / "home/program") in capsys.readouterr().err


def test_a_failure_is_said_without_a_traceback(ask, capsys) -> None:
    assert ask(InstallError("no network\nPut it there by hand.")) == 1
    assert capsys.readouterr().err == "no network\nPut it there by hand.\n"


def test_an_engine_without_an_installer_needs_nothing(ask, tmp_path: Path, capsys) -> None:
    assert ask(None, "--engine", "fake") == 0
    assert "needs nothing" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_an_unknown_engine_is_wrong_usage(ask, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        ask(None, "--engine", "qemu")

    assert caught.value.code == 2
    assert "fake" in capsys.readouterr().err
