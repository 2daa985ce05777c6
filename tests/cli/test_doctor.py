from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from mitos.cli import doctor as doctor_module
from mitos.cli import examination
from mitos.cli.doctor import doctor
from mitos.cli.examination import Check, Status
from mitos.engine.base import Probe, ProbeCheck
from mitos.images.image import DirectoryImage
from mitos.images.store import ImageStore
from tests.machine import mitos_home, why_no_real_sandboxes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("passed", "required", "expected"),
    [
        (True, True, Status.PASS),
        (True, False, Status.PASS),
        (False, False, Status.WARN),
        (False, True, Status.FAIL),
    ],
)
def test_an_engines_check_fails_only_when_the_engine_needs_it(
    passed: bool, required: bool, expected: Status
) -> None:
    probe = Probe("gvisor", (ProbeCheck("runsc", passed, "detail", "fix", required),))

    assert examination.engine_checks(probe) == [Check("gvisor: runsc", expected, "detail", "fix")]


@pytest.mark.parametrize(
    ("free_bytes", "expected"),
    [(0, Status.FAIL), (GIB - 1, Status.FAIL), (GIB, Status.WARN), (50 * GIB, Status.PASS)],
)
def test_disk_space_is_graded(free_bytes: int, expected: Status) -> None:
    check = examination.check_disk(free_bytes, Path("/var/lib/mitos"))

    assert check.status is expected
    assert bool(check.remediation) == (expected is not Status.PASS)


@pytest.mark.parametrize(
    ("meminfo", "expected"),
    [
        ("MemTotal: 9 kB\nMemAvailable:   100000 kB\n", Status.FAIL),
        ("MemAvailable:  1500000 kB\n", Status.WARN),
        ("MemAvailable: 16000000 kB\n", Status.PASS),
        ("MemTotal: 16000000 kB\n", Status.WARN),
        ("MemAvailable: lots\n", Status.WARN),
    ],
)
def test_memory_is_graded(meminfo: str, expected: Status) -> None:
    assert examination.check_memory(meminfo).status is expected


def test_a_port_in_use_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert examination.check_port(port).status is Status.WARN

    assert examination.check_port(port).status is Status.PASS


async def test_templates_are_listed_once_built(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    (tmp_path / "templates.toml").write_text('[templates.mine]\nrootfs = "source"\n')
    store = ImageStore(tmp_path)
    assert (await examination.check_templates(tmp_path)).status is Status.WARN

    await store.ensure(DirectoryImage("mine", tmp_path / "source"), lambda _: None)

    assert await examination.check_templates(tmp_path) == Check(
        "templates", Status.PASS, "built: mine"
    )


async def test_a_faulty_configuration_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "templates.toml").write_text("[templates.x")

    check = await examination.check_templates(tmp_path)

    assert check.status is Status.FAIL
    assert "templates.toml" in check.detail


def run(monkeypatch: pytest.MonkeyPatch, checks: list[Check], *arguments: str) -> tuple[int, str]:
    async def examine(_: Path, *, port: int) -> list[Check]:
        assert port == 8080
        return checks

    monkeypatch.setattr(doctor_module.examination, "examine", examine)
    result = CliRunner().invoke(doctor, arguments)
    return result.exit_code, result.output


GOOD = Check("python", Status.PASS, "3.11")
WEAK = Check("memory", Status.WARN, "little", "End other programs")
BAD = Check("gvisor: runsc", Status.FAIL, "no runsc", "Run: scripts/install")


@pytest.mark.parametrize(
    ("checks", "expected"), [([GOOD], 0), ([GOOD, WEAK], 0), ([GOOD, WEAK, BAD], 1)]
)
def test_the_exit_code_says_whether_sandboxes_can_run(
    monkeypatch: pytest.MonkeyPatch, checks: list[Check], expected: int
) -> None:
    assert run(monkeypatch, checks)[0] == expected


def test_what_is_wrong_is_shown_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = run(monkeypatch, [GOOD, BAD])

    assert "no runsc" in output
    assert "Run: scripts/install" in output


def test_json_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [GOOD, BAD], "--output", "json")

    assert code == 1
    assert json.loads(output) == [
        {"name": "python", "status": "pass", "detail": "3.11", "remediation": ""},
        {
            "name": "gvisor: runsc",
            "status": "fail",
            "detail": "no runsc",
            "remediation": "Run: scripts/install",
        },
    ]


@pytest.mark.parametrize("script", ["", "echo runsc version release-20221219.0"])
def test_without_a_usable_runsc_it_fails_and_names_the_remedy(tmp_path: Path, script: str) -> None:
    if script:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/mitos-engine").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/mitos-engine").chmod(0o755)

    result = CliRunner().invoke(doctor, ["--home", str(tmp_path), "--output", "json"])

    assert result.exit_code == 1
    [runsc] = [row for row in json.loads(result.output) if row["name"] == "gvisor: runsc"]
    assert runsc["status"] == "fail"
    assert "pip install 'mitos-run[server]'" in runsc["remediation"]


def test_an_engine_that_needs_no_kvm_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["--home", str(tmp_path), "--output", "json"])

    [kvm] = [row for row in json.loads(result.output) if row["name"] == "/dev/kvm"]
    assert kvm["status"] == "pass"
    assert kvm["detail"].endswith("; the gVisor engine does not need it")


@pytest.mark.real
def test_this_machine_passes() -> None:
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)

    result = CliRunner().invoke(doctor, ["--home", str(mitos_home()), "--output", "json"])

    rows = json.loads(result.output)
    assert [row for row in rows if row["status"] == "fail"] == []
    assert result.exit_code == 0
