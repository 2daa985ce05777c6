"""`mitos service` where systemd does not run, and its units in a folder of the test's own.

What it does under systemd is in `tests/service`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mitos.cli import installation, unit
from mitos.cli import service as service_module
from mitos.cli.listener import Place
from mitos.cli.service import service
from mitos.cli.unit import Service
from mitos.host import systemd
from mitos.wire.errors import ApiError


@pytest.fixture(autouse=True)
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    monkeypatch.setattr(systemd, "UNITS", folder)
    monkeypatch.setattr(systemd, "is_running", lambda: False)
    return folder


def invoke(*words: str) -> Result:
    return CliRunner().invoke(service, words, prog_name="mitos service")


def test_print_only_says_what_it_would_write(tmp_path: Path, units: Path) -> None:
    said = invoke("install", "--print", "--home", str(tmp_path / "home"), "--addr", "127.0.0.1:99")

    assert 0 == said.exit_code, said.output
    assert f"# {units}/mitos.service\n" in said.stdout
    assert f"# {units}/mitos.socket\n" in said.stdout
    assert "ListenStream=127.0.0.1:99" in said.stdout
    assert f"--home {tmp_path}/home" in said.stdout
    assert [] == list(units.iterdir())
    assert not (tmp_path / "home").exists()


def test_options_of_the_server_go_on_to_it() -> None:
    said = invoke("install", "--print", "--", "--idle-timeout", "60", "--prepare", "base")

    assert "--no-setup --idle-timeout 60 --prepare base\n" in said.stdout


@pytest.mark.parametrize(
    ("words", "explained"),
    [
        (["--", "--nonsense"], "No such option"),
        (["--", "--idle-timeout", "x"], "--idle-timeout"),
        (["--", "--addr", "127.0.0.1:1"], "before --"),
        (["--", "--home", "/x"], "before --"),
        (["--", "--no-setup"], "before --"),
        (["--addr", "127.0.0.1:0"], "a port that stays"),
        (["--addr", "nonsense"], "--addr"),
        (["--addr", "0.0.0.0:8080"], "--api-key-file"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_written(
    units: Path, words: list[str], explained: str
) -> None:
    said = invoke("install", *words)

    assert 2 == said.exit_code
    assert explained in said.stderr
    assert [] == list(units.iterdir())


def test_everybody_may_be_served_if_that_is_meant() -> None:
    addr = ("--addr", "0.0.0.0:8080")

    assert 0 == invoke("install", "--print", *addr, "--", "--allow-unauthenticated").exit_code


def test_the_key_is_named_and_not_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("mitos_live_secret\n")
    key.chmod(0o600)

    said = invoke("install", "--print", "--addr", "0.0.0.0:80", "--api-key-file", str(key))

    assert f"--api-key-file {key}" in said.stdout
    assert "mitos_live_secret" not in said.output
    key.chmod(0o644)
    assert 2 == invoke("install", "--print", "--api-key-file", str(key)).exit_code


@pytest.mark.parametrize("words", [["install"], ["status"], ["uninstall"]])
def test_without_systemd_it_says_what_else_to_do(words: list[str]) -> None:
    said = invoke(*words)

    assert isinstance(said.exception, ApiError)
    assert "systemd does not run this machine" in said.exception.cause
    assert "--on-stop leave" in said.exception.remediation


@pytest.mark.parametrize("words", [["install"], ["uninstall"]])
def test_only_root_changes_the_machine(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "is_running", lambda: True)
    monkeypatch.setattr(service_module.os, "geteuid", lambda: 1000)

    said = invoke(*words)

    assert isinstance(said.exception, ApiError)
    assert "forbidden" == said.exception.code
    assert "sudo" in said.exception.remediation


@pytest.mark.parametrize("name", ["mitos.service", "mitos.socket"])
def test_units_of_somebody_else_are_left_alone(units: Path, name: str) -> None:
    (units / name).write_text("[Unit]\nDescription=another\n")

    with pytest.raises(ApiError, match="is not ours"):
        installation.find()

    assert "another" in (units / name).read_text()


def test_a_unit_that_was_changed_is_told(units: Path) -> None:
    (units / "mitos.service").write_text(f"{unit.MARK}\n[Service]\n")

    with pytest.raises(ApiError) as refused:
        installation.find()

    assert "systemctl edit" in refused.value.remediation


def test_what_is_installed_is_found(units: Path) -> None:
    assert installation.find() is None
    expected = Service(("/bin/mitos",), Path("/srv"), Place("127.0.0.1", 1))
    systemd.write(units / "mitos.service", unit.service_text(expected))

    assert expected == installation.find()


def test_a_unit_is_written_whole_once_and_for_everybody_to_read(units: Path) -> None:
    path = units / "mitos.socket"

    assert systemd.write(path, "one")
    assert not systemd.write(path, "one")
    path.chmod(0o600)
    assert systemd.write(path, "one")
    assert systemd.write(path, "two")

    assert ("two", 0o644) == (path.read_text(), path.stat().st_mode & 0o777)
    assert [path] == list(units.iterdir())
