"""The texts of a server's units: what systemd makes of them, and what we read back."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from mitos.cli import unit
from mitos.cli.listener import Place
from mitos.cli.unit import SERVICE, SOCKET, Service

PLAIN = Service(("/bin/true",), Path("/var/lib/mitos"), Place("127.0.0.1", 8080))
ODD = Service(
    ("/bin/true",),
    Path('/srv/a home/50%/$HOME/"it\'s"\\n'),
    Place("::", 80),
    Path("/etc/mitos/a key"),
    ("--allow-host", "b;c", "--prepare", "#%n", "--allow-origin", "https://x.example"),
)
DEADLINE_S = 60


def lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.mark.parametrize("service", [PLAIN, ODD])
def test_what_was_written_is_read_back(service: Service) -> None:
    text = unit.service_text(service)

    assert unit.is_ours(text)
    assert unit.is_ours(unit.socket_text(service))
    assert service == unit.read(text)


@pytest.mark.parametrize("service", [PLAIN, ODD])
@pytest.mark.timeout(DEADLINE_S)
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path, service: Service) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed: run scripts/install --dev")
    (tmp_path / SERVICE).write_text(unit.service_text(service))
    (tmp_path / SOCKET).write_text(unit.socket_text(service))

    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / SERVICE, tmp_path / SOCKET],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert (0, "") == (said.returncode, said.stderr)


def test_words_are_quoted_as_systemd_reads_them() -> None:
    found = lines(unit.service_text(ODD))

    assert '"/srv/a home/50%%/$HOME/\\"it\'s\\"\\\\n"' == found["ReadWritePaths"]
    assert '--home "/srv/a home/50%%/$$HOME/\\"it\'s\\"\\\\n" ' in found["ExecStart"]
    assert found["ExecStart"].endswith(
        '--allow-host "b;c" --prepare "#%%n" --allow-origin https://x.example'
    )


@pytest.mark.parametrize("word", ["a\nb", "a\0b", "\x1b[0m"])
def test_a_word_that_no_unit_can_hold_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        unit.service_text(dataclasses.replace(PLAIN, options=("--prepare", word)))


def test_sandboxes_outlive_the_server() -> None:
    found = lines(unit.service_text(PLAIN))

    assert "process" == found["KillMode"]
    assert "--on-stop leave" in found["ExecStart"]
    assert "continue" == found["OOMPolicy"]
    assert "always" == found["Restart"]


@pytest.mark.parametrize(
    ("host", "expected", "is_free"),
    [
        ("127.0.0.1", "127.0.0.1:8080", False),
        ("0.0.0.0", "0.0.0.0:8080", False),
        ("::", "[::]:8080", False),
        ("10.0.0.5", "10.0.0.5:8080", True),
    ],
)
def test_the_socket_waits_for_no_network_card(host: str, expected: str, is_free: bool) -> None:
    found = lines(unit.socket_text(dataclasses.replace(PLAIN, place=Place(host, 8080))))

    assert expected == found["ListenStream"]
    assert is_free == ("FreeBind" in found)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("10.0.0.5", "http://10.0.0.5:8080"),
    ],
)
def test_this_machine_reaches_every_address(host: str, expected: str) -> None:
    assert expected == dataclasses.replace(PLAIN, place=Place(host, 8080)).url


@pytest.mark.parametrize("text", ["", "[Service]\n", "[X-Mitos]\nService={}\n", "x"])
def test_a_text_without_our_section_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unit.read(text)
