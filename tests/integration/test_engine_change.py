"""A home that was used with another release of the engine: nothing is restored wrongly."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.engine.gvisor.debian import debian_runsc
from tests.integration.conftest import serve
from tests.machine import borrow_cache, why_no_real_sandboxes

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]


def test_templates_are_made_anew_and_the_asleep_are_told(tmp_path: Path) -> None:
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    home = tmp_path / "home"
    home.mkdir()
    borrow_cache(home)
    old = str(debian_runsc())
    with serve(home, tmp_path / "old.log", MITOS_RUNSC=old) as server:
        sandbox = server.create()
        sandbox.exec("echo kept > /workspace/note")
        sandbox.hibernate()
    snapshots = set((home / "snapshots").iterdir())

    with serve(home, tmp_path / "new.log", MITOS_RUNSC="") as server:
        answer = httpx.post(f"{server.url}/v1/resume", json={"sandbox": sandbox.id})
        with server.create() as fresh:
            assert fresh.exec("echo runs").stdout == "runs\n"
        assert set((home / "snapshots").iterdir()) > snapshots

    assert answer.status_code == 404
    assert "this server cannot read its snapshot" in answer.text

    again = serve(home, tmp_path / "again.log", MITOS_RUNSC=old)
    with again as server, server.create() as fresh:
        assert fresh.exec("echo runs").stdout == "runs\n"
