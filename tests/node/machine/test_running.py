"""A restored machine that ends before it has proved who it is, on the fake engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mitos.agent.identity import make_identity
from mitos.engine.base import Blank, Machine, MachineEnd, MachineSpec, Snapshot
from mitos.engine.fake import FakeEngine
from mitos.engine.fake.engine import FakeMachine
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.node.machine import running
from mitos.wire.errors import ApiError

DEADLINE_S = 5.0


class Ending(FakeEngine):
    """Its restored machines end at once.

    Args:
        end: why.
    """

    def __init__(self, end: MachineEnd) -> None:
        super().__init__()
        self._end = end

    async def restore(self, blank: Blank, snapshot: Snapshot) -> Machine:
        machine = await super().restore(blank, snapshot)
        assert isinstance(machine, FakeMachine)
        await machine.stop(self._end)
        return machine


@pytest.mark.parametrize(
    ("end", "code"),
    [(MachineEnd.OUT_OF_MEMORY, "quota_exceeded"), (MachineEnd.LOST, "internal")],
)
async def test_it_says_whether_it_lacked_memory(end: MachineEnd, code: str, tmp_path: Path) -> None:
    engine = Ending(end)
    await engine.start()
    spec = MachineSpec(RootFilesystem(RootKind.FOLDER, tmp_path), tmp_path)
    snapshot = await engine.checkpoint(await engine.boot(spec), tmp_path / "snapshot")
    blank = await engine.prepare(spec)

    with pytest.raises(ApiError, match="before it confirmed") as caught:
        await running.restore(
            engine,
            blank,
            snapshot,
            identity_of=lambda _: make_identity("box", os.urandom),
            deadline_s=DEADLINE_S,
        )

    assert caught.value.code == code
    assert ("mem_size_mib" in caught.value.remediation) == (end is MachineEnd.OUT_OF_MEMORY)
    await engine.close()
