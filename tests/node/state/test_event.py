"""The feed: numbered, resumable, bounded, and never ahead of the state or behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mitos.node.end import EndReason
from mitos.node.phase import Phase
from mitos.node.state import event as event_module
from mitos.node.state.event import EventKind
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.consistency import all_kept
from tests.node.state.conftest import MakeRow


def kinds(state: State, cursor: int | None = None) -> list[EventKind] | None:
    events = all_kept(state.events) if cursor is None else state.events.after(cursor)
    return None if events is None else [event.kind for event in events]


def test_an_event_carries_the_row_as_it_is_afterwards(
    state: State, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    state.sandboxes.change(row("one", phase=Phase.PAUSED), EventKind.PHASE)
    state.sandboxes.end(row("one", phase=Phase.PAUSED), EndReason.LOST)

    created, paused, ended = all_kept(state.events)
    assert (EventKind.CREATED, row("one")) == (created.kind, created.sandbox)
    assert (EventKind.PHASE, Phase.PAUSED) == (
        paused.kind,
        paused.sandbox and paused.sandbox.phase,
    )
    assert (EventKind.ENDED, EndReason.LOST) == (ended.kind, ended.reason)
    assert {clock.now()} == {created.at, paused.at, ended.at}
    assert created.id < paused.id < ended.id


def test_a_reader_goes_on_from_any_number(state: State, row: MakeRow) -> None:
    for name in "abc":
        state.sandboxes.begin([row(name)])

    events = all_kept(state.events)
    for index, event in enumerate(events):
        assert events[index + 1 :] == state.events.after(event.id)
    assert state.events.after(state.events.last_id + 1) is None


def test_a_reader_goes_on_at_the_next_server(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    cursor = state.events.last_id
    state.sandboxes.end(row("one"), EndReason.LOST)
    state.close()

    again = State.open(tmp_path, clock)
    again.sandboxes.begin([row("two")])

    assert [EventKind.ENDED, EventKind.CREATED] == kinds(again, cursor)
    assert [event.sandbox for event in again.events.after(cursor) or []] == [row("one"), row("two")]
    again.close()


def test_numbers_are_not_given_twice_after_a_crash_on_a_full_disk(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    state.database._connection.execute("PRAGMA query_only = 1")
    state.sandboxes.end(row("one"), EndReason.LOST)
    told = state.events.last_id

    again = State.open(tmp_path, clock)  # the first one has crashed
    again.sandboxes.end(row("one"), EndReason.SERVER_STOPPED)

    assert again.events.last_id > told
    assert [EventKind.ENDED] == kinds(again, told)
    again.close()


def test_a_reader_who_is_too_late_starts_over(
    state: State,
    tmp_path: Path,
    clock: ManualClock,
    row: MakeRow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_module, "KEPT", 4)
    monkeypatch.setattr(event_module, "_TRIM_EVERY", 1)
    begin = state.events.last_id
    for number in range(6):
        state.sandboxes.begin([row(f"s{number}")])

    assert kinds(state, begin) is kinds(state, begin + 1) is None
    assert 4 == len(kinds(state, begin + 2) or [])
    state.close()
    again = State.open(tmp_path, clock)
    assert kinds(again, begin) is kinds(again, begin + 1) is None
    assert 4 == len(kinds(again, begin + 2) or [])
    assert [(4,)] == again.database.query("SELECT count(*) FROM event")
    again.close()


async def test_another_homes_feed_is_not_gone_on_with(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    told = state.events.last_id
    (tmp_path / "other").mkdir()
    await clock.advance(1)

    other = State.open(tmp_path / "other", clock)
    assert kinds(other, told) is None
    other.sandboxes.begin([row("a"), row("b")])
    assert kinds(other, told) is None
    assert other.events.last_id > told
    other.close()


def test_a_damaged_feed_begins_anew(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    told = state.events.last_id
    with state.database.transaction() as transaction:
        transaction.execute("UPDATE event SET body = '{'")
    state.close()

    again = State.open(tmp_path, clock)
    assert kinds(again, told) is None
    again.sandboxes.end(row("one"), EndReason.LOST)
    assert again.events.last_id > told
    assert [EventKind.ENDED] == kinds(again)
    again.close()


def test_what_is_not_written_is_not_told(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("one")])
    state.database._connection.execute("PRAGMA query_only = 1")

    with pytest.raises(ApiError):
        state.sandboxes.begin([row("two")])

    assert [EventKind.CREATED] == kinds(state)


async def test_a_waiting_reader_is_told_at_once(state: State, row: MakeRow) -> None:
    waiting = asyncio.create_task(state.events.wait(state.events.last_id))
    await asyncio.sleep(0)
    assert not waiting.done()

    state.sandboxes.begin([row("one")])

    await asyncio.wait_for(waiting, 1)


def test_a_listener_hears_every_event_in_order(state: State, row: MakeRow) -> None:
    heard: list[int] = []
    state.events.listen(lambda event: heard.append(event.id))

    state.sandboxes.begin([row("a"), row("b")])
    state.sandboxes.end(row("a"), EndReason.LOST)

    assert [event.id for event in all_kept(state.events)] == heard
