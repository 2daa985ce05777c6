"""The state of a home, without a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from mitos.engine.base import MachineSpec, Resources
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.phase import Phase
from mitos.node.state.persist import SandboxRow
from mitos.node.state.state import State
from mitos.wire.network import NetworkPosture
from tests.node.clock import ManualClock

MakeRow = Callable[..., SandboxRow]


@pytest.fixture
def state(tmp_path: Path, clock: ManualClock) -> Iterator[State]:
    opened = State.open(tmp_path, clock)
    yield opened
    opened.close()


@pytest.fixture
def row(tmp_path: Path) -> MakeRow:
    """Makes rows; members that are not named have ordinary values."""
    ordinary = SandboxRow(
        uid="",
        owner="local",
        id="one",
        template_id="python",
        parent_uid=None,
        parent_id=None,
        created_at=datetime(2027, 1, 15, 8, 0, 0, 123456, tzinfo=timezone.utc),
        fork_time_ms=12.5,
        network=NetworkPosture(egress="allow", allow_domains=("example.com:443",)),
        phase=Phase.READY,
        spec=MachineSpec(
            RootFilesystem(RootKind.FOLDER, tmp_path / "rootfs"),
            tmp_path / "guest",
            Resources(2, 1024),
            {"A": "b"},
        ),
        snapshot_format="fake-1",
        machine_id="fake-7",
        copied_bytes=1 << 20,
        deadline=None,
        remaining_s=None,
        budget_id="budget",
    )

    def make(sandbox_id: str = "one", **members: object) -> SandboxRow:
        return replace(ordinary, **{"id": sandbox_id, "uid": f"uid-{sandbox_id}", **members})  # type: ignore[arg-type]

    return make
