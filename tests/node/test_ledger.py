"""What the ledger remembers, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.node import ledger as ledger_module
from mitos.node.ledger import EndReason, Ledger


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "state.db", clock)
    yield opened
    opened.close()


def test_a_reaped_sandbox_is_remembered_for_a_day(ledger: Ledger, clock: Clock) -> None:
    ledger.add_sandbox("one", template_id="python", machine_id="m")
    ledger.end_sandbox("one", EndReason.DEADLINE)
    assert EndReason.DEADLINE is ledger.end_reason("one")

    clock.now += 24 * 3600 + 1
    ledger.add_sandbox("two", template_id="python", machine_id="m")
    ledger.end_sandbox("two", EndReason.LOST)

    assert ledger.end_reason("one") is None
    assert EndReason.LOST is ledger.end_reason("two")


def test_only_the_last_ends_are_kept(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "ENDED_LIMIT", 3)
    for number in range(5):
        clock.now += 1
        ledger.end_sandbox(f"s{number}", EndReason.DEADLINE)

    assert [False, False, True, True, True] == [
        ledger.end_reason(f"s{number}") is not None for number in range(5)
    ]


def test_a_new_sandbox_of_the_same_id_forgets_the_old_ones_end(ledger: Ledger) -> None:
    ledger.end_sandbox("one", EndReason.DEADLINE)

    ledger.add_sandbox("one", template_id="python", machine_id="m")

    assert ledger.end_reason("one") is None


def test_a_crashed_predecessors_sandboxes_end_at_the_next_start(
    ledger: Ledger, tmp_path: Path, clock: Clock
) -> None:
    ledger.add_sandbox("one", template_id="python", machine_id="m")

    again = Ledger(tmp_path / "state.db", clock)

    assert ["one"] == again.end_leftovers()
    assert EndReason.SERVER_STOPPED is again.end_reason("one")
    assert [] == again.end_leftovers()
    again.close()


def test_an_idempotency_key_is_recalled_for_a_day_and_by_kind(ledger: Ledger, clock: Clock) -> None:
    ledger.remember("key", "fork", ["one"])

    assert ["one"] == ledger.recall("key", "fork")
    assert ledger.recall("key", "template") is None
    clock.now += 24 * 3600 + 1
    assert ledger.recall("key", "fork") is None
