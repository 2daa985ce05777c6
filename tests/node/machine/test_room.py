"""Room for machines: what is being made counts, and what was made is counted by the kernel."""

from __future__ import annotations

import pytest

from mitos.host import descriptors
from mitos.node.machine import room
from mitos.node.machine.room import Room
from mitos.wire.errors import ApiError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was looked for; 200 descriptors are free."""
    found: list[int] = []

    def has_room(count: int) -> bool:
        found.append(count)
        return count <= 200

    monkeypatch.setattr(descriptors, "has_room", has_room)
    monkeypatch.setattr(room, "STARTS", 4)
    return found


def test_those_that_are_being_made_count(asked: list[int]) -> None:
    shared = Room()

    with shared.taken(1), shared.taken(2):
        pass
    with shared.taken(8):
        pass

    assert [32 + 18, 32 + 18 + 36, 32 + 96 + 24] == asked


def test_who_would_take_the_last_ones_is_refused_and_holds_nothing(asked: list[int]) -> None:
    shared = Room()

    with shared.taken(8):
        with pytest.raises(ApiError, match="no room") as caught, shared.taken(3):
            pass
        assert ("quota_exceeded", "descriptors") == (
            caught.value.code,
            caught.value.context["dimension"],
        )
        with shared.taken(2):
            pass

    with shared.taken(8):
        assert 32 + 96 + 24 == asked[-1]
