"""A program that nobody has tested is tried out: what works is used, what does not is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.node.trial import try_out
from tests.engine.gvisor.place import Leftovers
from tests.machine import runsc, why_no_real_sandboxes

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

VERSION = '[ "$1" = --version ] && exec echo runsc version release-20991231.0'


def program(path: Path, *lines: str) -> Path:
    """A runsc of the far future, with lines of shell before it goes on."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    path.write_text("\n".join(["#!/bin/sh", VERSION, *lines, f'exec {runsc()} "$@"', ""]))
    path.chmod(0o755)
    return path


async def trial(tmp_path: Path, runsc: Path) -> None:
    engine = GvisorEngine(GvisorSettings(runsc=runsc, state=tmp_path / "state"))
    await engine.start()
    try:
        assert not engine.is_tested
        await try_out(engine)
    finally:
        await engine.close()
        assert Leftovers(tmp_path / "state", engine.control_group).sandboxes() == []


async def test_a_program_that_works_passes(tmp_path: Path) -> None:
    await trial(tmp_path, program(tmp_path / "runsc"))


@pytest.mark.parametrize(
    ("step", "word"), [("boot", "start"), ("checkpoint", "checkpoint"), ("restore", "restore")]
)
async def test_one_that_does_not_is_refused_with_the_step_that_failed(
    tmp_path: Path, step: str, word: str
) -> None:
    broken = f'case " $* " in *" {word} "*) echo not here >&2; exit 1 ;; esac'

    with pytest.raises(EngineError, match=f"{step} failed: .*not here") as caught:
        await trial(tmp_path, program(tmp_path / "runsc", broken))

    assert caught.value.fault is EngineFault.UNAVAILABLE
    assert "gvisor-20991231.0 has not been tested" in str(caught.value)
    assert "mitos doctor" in caught.value.remediation
