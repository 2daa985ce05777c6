"""What an engine measures reaches those who ask, whichever engine it is."""

from __future__ import annotations

from contextlib import aclosing
from types import SimpleNamespace

import pytest

from mitos.engine.base import Resources, Usage
from mitos.engine.fake.engine import FakeMachine
from mitos.node import vitals
from mitos.node.vitals import SandboxUsage
from tests.node.conftest import Node


async def test_a_sandboxs_usage_is_what_its_engine_measures(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def usage(_: FakeMachine) -> Usage:
        return Usage(
            memory_bytes=100,
            cpu_seconds=3.0,
            shared_bytes=40,
            balloon_bytes=8,
            steal_seconds=1.0,
            disk_bytes=5,
        )

    monkeypatch.setattr(FakeMachine, "usage", usage)
    record = await node.create("python", "one")

    [found] = await node.running.usages()

    assert found == SandboxUsage(
        uid=record.uid,
        sandbox_id="one",
        template_id="python",
        memory_bytes=100,
        memory_limit_bytes=512 << 20,
        shared_bytes=40,
        balloon_bytes=8,
        disk_bytes=5,
        steal_fraction=0.25,
    )
    assert found.unique_bytes == 60


async def test_an_engine_that_shares_and_withholds_nothing_gives_zeros(node: Node) -> None:
    await node.create("python", "one")

    [found] = await node.running.usages()

    assert found.unique_bytes == found.memory_bytes > 0
    assert (found.balloon_bytes, found.disk_bytes, found.steal_fraction) == (0, 0, 0.0)


class Measured:
    """A machine whose readings are given, and its agent."""

    def __init__(self, *readings: Usage) -> None:
        self._readings = iter(readings)
        self.spec = SimpleNamespace(resources=Resources(memory_mib=1))

    async def usage(self) -> Usage:
        return next(self._readings)

    async def count_processes(self) -> int:
        return 3


async def test_shares_are_the_difference_of_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "WINDOW_S", 0.0)
    monkeypatch.setattr(
        vitals, "time", SimpleNamespace(time=lambda: 1000.5, monotonic=iter([10.0, 14.0]).__next__)
    )
    machine = Measured(
        Usage(memory_bytes=7, cpu_seconds=20.0, steal_seconds=5.0),
        Usage(memory_bytes=9, cpu_seconds=22.0, steal_seconds=6.0, balloon_bytes=4),
    )

    async with aclosing(vitals.watch(lambda: machine, machine, interval_s=1.0)) as samples:  # type: ignore[arg-type]
        sample = await anext(samples)

    assert sample == vitals.Vitals(
        sampled_at_unix=1000,
        cpu_percent=50.0,
        steal_percent=25.0,
        memory_used_bytes=9,
        memory_total_bytes=1 << 20,
        balloon_bytes=4,
        process_count=3,
    )
