"""What keys remember."""

from __future__ import annotations

from mitos.node.state.state import State
from tests.node.clock import ManualClock


async def recall(state: State, owner: str, key: str, kind: str) -> list[str] | None:
    async with state.keys.use(owner, key, kind) as use:
        assert use is not None
        return use.created


async def test_an_idempotency_key_is_recalled_for_a_day_and_by_kind(
    state: State, clock: ManualClock
) -> None:
    async with state.keys.use("local", "key", "fork") as use:
        assert use is not None
        with state.database.transaction() as transaction:
            use.write(transaction, ["one"])

    assert ["one"] == await recall(state, "local", "key", "fork")
    assert await recall(state, "local", "key", "template") is None
    await clock.advance(24 * 3600 + 1)
    assert await recall(state, "local", "key", "fork") is None


async def test_the_same_text_is_another_key_for_another_owner(state: State) -> None:
    async with state.keys.use("local", "key", "fork") as use:
        assert use is not None
        with state.database.transaction() as transaction:
            use.write(transaction, ["one"])

    assert await recall(state, "other", "key", "fork") is None


async def test_a_request_without_a_key_holds_none(state: State) -> None:
    async with state.keys.use("local", None, "fork") as use:
        assert use is None
