"""The stock of blanks follows what forks took lately."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from mitos.node.machine.pool import RECENT_TAKES, stock_for
from mitos.node.settings import NodeSettings

SETTINGS = NodeSettings(home=Path(), scratch=Path(), blanks_per_spec=4, max_blanks_per_spec=16)


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        ([1], 4),
        ([9], 9),
        ([9, 1, 1], 9),
        ([1, 9, 2], 9),
        ([64, 1], 16),
        ([9, *[1] * (RECENT_TAKES - 1)], 9),
        ([9, *[1] * RECENT_TAKES], 4),
    ],
)
def test_it_is_the_largest_of_the_last_within_bounds(takes: list[int], expected: int) -> None:
    assert stock_for(deque(takes, maxlen=RECENT_TAKES), SETTINGS) == expected
