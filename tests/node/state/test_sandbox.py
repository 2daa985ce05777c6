"""What the state remembers of sandboxes, and for how long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mitos.node.end import EndReason
from mitos.node.phase import Phase
from mitos.node.state import persist
from mitos.node.state import sandbox as table_module
from mitos.node.state.event import EventKind
from mitos.node.state.persist import CheckpointRow
from mitos.node.state.state import State
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from tests.node.clock import ManualClock
from tests.node.consistency import all_kept
from tests.node.state.conftest import MakeRow


async def test_a_reaped_sandbox_is_remembered_for_a_day(
    state: State, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    state.sandboxes.end(row("one"), EndReason.DEADLINE)
    assert (EndReason.DEADLINE, 1024) == state.sandboxes.end_reason("local", "one")

    await clock.advance(24 * 3600 + 1)
    state.sandboxes.begin([row("two")])
    state.sandboxes.end(row("two"), EndReason.LOST)

    assert state.sandboxes.end_reason("local", "one") is None
    assert (EndReason.LOST, 1024) == state.sandboxes.end_reason("local", "two")


async def test_only_the_last_ends_are_kept(
    state: State, clock: ManualClock, row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "ENDED_LIMIT", 3)
    for number in range(5):
        await clock.advance(1)
        state.sandboxes.begin([row(f"s{number}")])
        state.sandboxes.end(row(f"s{number}"), EndReason.DEADLINE)

    assert [False, False, True, True, True] == [
        state.sandboxes.end_reason("local", f"s{number}") is not None for number in range(5)
    ]


def test_a_new_sandbox_of_the_same_id_forgets_the_old_ones_end(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("one")])
    state.sandboxes.end(row("one"), EndReason.DEADLINE)

    state.sandboxes.begin([row("one", uid="another")])

    assert state.sandboxes.end_reason("local", "one") is None


def test_a_row_comes_back_as_it_was_saved(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    """A live sandbox is found again from its row alone."""
    first = row("one", deadline=123.5, parent_uid="uid-zero", parent_id="zero")
    second = replace(row("two"), phase=Phase.HIBERNATED, machine_id=None, remaining_s=7.25)
    state.sandboxes.begin([first, second])
    state.close()

    again = State.open(tmp_path, clock)

    assert [first, second] == again.sandboxes.living()
    again.close()


def test_a_change_is_what_the_next_server_finds(
    state: State, tmp_path: Path, clock: ManualClock, row: MakeRow
) -> None:
    state.sandboxes.begin([row("one")])
    changed = row("one", phase=Phase.PAUSED, deadline=5.0, remaining_s=1.5)

    state.sandboxes.change(changed, EventKind.PHASE)

    assert [changed] == state.sandboxes.living()


def test_owners_have_ids_of_their_own(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("one"), row("one", uid="theirs", owner="other")])
    state.sandboxes.end(row("one"), EndReason.LOST)

    assert (EndReason.LOST, 1024) == state.sandboxes.end_reason("local", "one")
    assert state.sandboxes.end_reason("other", "one") is None
    assert ["theirs"] == [each.uid for each in state.sandboxes.living()]


def test_a_family_is_found_from_any_member(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("a")])
    state.sandboxes.begin([row("b", parent_uid="uid-a"), row("c", parent_uid="uid-a")])
    state.sandboxes.begin([row("d", parent_uid="uid-b"), row("stranger")])
    state.sandboxes.end(row("b", parent_uid="uid-a"), EndReason.EXITED)

    for uid in ("uid-a", "uid-b", "uid-c", "uid-d"):
        family = state.sandboxes.family(uid)
        assert {"a", "b", "c", "d"} == {relative.id for relative in family}
        assert {"b": EndReason.EXITED} == {r.id: r.reason for r in family if r.reason}


def test_a_rename_ends_whom_it_replaces_in_one_step(state: State, row: MakeRow) -> None:
    parent, child = row("parent"), row("child", parent_uid="uid-parent")
    state.sandboxes.begin([parent])
    state.sandboxes.begin([child])

    state.sandboxes.rename(replace(child, id="parent"), replaced=parent)

    assert ["uid-child"] == [each.uid for each in state.sandboxes.living()]
    assert state.sandboxes.end_reason("local", "child") is None
    kinds = [event.kind for event in all_kept(state.events)]
    assert [EventKind.ENDED, EventKind.RENAMED] == kinds[-2:]


def test_a_body_of_another_version_is_refused(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("one")])
    with state.database.transaction() as transaction:
        transaction.execute("UPDATE sandbox SET body = json_set(body, '$.version', 2)")

    with pytest.raises(ApiError, match="version 2"):
        state.sandboxes.living()


DAMAGE = ["not json", "null", '{"version": 1}', '{"version": 1, "spec": 5}', "[]"]


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_row_hides_no_other_and_its_sandbox_has_ended(
    state: State, row: MakeRow, body: str
) -> None:
    state.sandboxes.begin([row("one"), row("two")])
    with state.database.transaction() as transaction:
        transaction.execute("UPDATE sandbox SET body = ? WHERE id = 'one'", (body,))

    assert ["two"] == [each.id for each in state.sandboxes.living()]
    assert ["two"] == [each.id for each in state.sandboxes.living()]
    reasons = state.database.query("SELECT reason FROM sandbox WHERE id = 'one'")
    assert [("unreadable",)] == reasons


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_checkpoint_hides_no_other_and_is_swept(
    state: State, row: MakeRow, body: str
) -> None:
    kept = CheckpointRow("cp-1", "uid-one", "kept", row().created_at, 1, row().spec, "fake-1")
    with state.database.transaction() as transaction:
        for each in (kept, replace(kept, id="cp-2")):
            columns = persist.checkpoint_columns(each)
            transaction.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", columns)
        transaction.execute("UPDATE checkpoint SET body = ? WHERE id = 'cp-1'", (body,))

    assert ["cp-2"] == [each.id for each in state.checkpoints.records("uid-one")]
    state.checkpoints.sweep({"uid-one"})

    assert [("cp-2",)] == state.database.query("SELECT id FROM checkpoint")


def test_a_kept_name_that_no_answer_can_hold_is_made_readable(state: State, row: MakeRow) -> None:
    """Earlier versions took any JSON string."""
    name = "a\0\ud800\U0001f600"
    kept = CheckpointRow("cp-1", "uid-one", name, row().created_at, 1, row().spec, "fake-1")
    with state.database.transaction() as transaction:
        columns = persist.checkpoint_columns(kept)
        transaction.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", columns)

    (found,) = state.checkpoints.records("uid-one")

    assert "a\0?\U0001f600" == found.name


def test_a_posture_of_before_the_bounds_is_still_read(state: State, row: MakeRow) -> None:
    domains = ("a\0b:80", *(f"{number}.example.com:443" for number in range(2000)))
    posture = NetworkPosture(allow_domains=domains)
    state.sandboxes.begin([row("one", network=posture)])

    assert [posture] == [each.network for each in state.sandboxes.living()]


def test_what_a_family_has_used_up_goes_with_its_last_member(state: State, row: MakeRow) -> None:
    state.sandboxes.begin([row("one"), row("two")])
    state.sandboxes.save_forks_used("budget", 5)
    state.sandboxes.end(row("one"), EndReason.TERMINATED)
    assert 5 == state.sandboxes.forks_used("budget")

    state.sandboxes.end(row("two"), EndReason.TERMINATED)

    assert 0 == state.sandboxes.forks_used("budget")
