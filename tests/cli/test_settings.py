from __future__ import annotations

from pathlib import Path

import pytest

from mitos.cli import settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MITOS_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_named_home_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MITOS_HOME", str(tmp_path / "named"))

    assert settings.home() == tmp_path / "named"


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOS_HOME", "here")

    assert settings.home() == Path.cwd() / "here"


def test_root_has_a_home_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.os, "geteuid", lambda: 0)

    assert settings.home() == Path("/var/lib/mitos")


@pytest.mark.parametrize(("data", "expected"), [(None, ".local/share/mitos"), ("xdg", "xdg/mitos")])
def test_a_user_has_a_home_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str | None, expected: str
) -> None:
    monkeypatch.setattr(settings.os, "geteuid", lambda: 1000)
    if data is not None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / data))

    assert settings.home() == tmp_path / expected
