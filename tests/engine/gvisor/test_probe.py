"""What an examination of the machine finds wrong, and says."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from mitos.engine.base import EngineError
from mitos.engine.gvisor import GvisorEngine
from mitos.engine.gvisor.settings import GvisorSettings
from tests.machine import runsc

pytestmark = pytest.mark.real


async def test_too_few_open_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = GvisorEngine(GvisorSettings(runsc=runsc(), state=tmp_path / "state"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))

    with pytest.raises(EngineError, match="a process may have 256 open files") as caught:
        await engine.start()

    assert "ulimit -Hn 512" in caught.value.remediation
