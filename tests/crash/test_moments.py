"""A hundred times `kill -9`: no sandbox, no command and no byte is lost, and nothing is left over.

One moment alone: `scripts/test --crash 'tests/crash/test_moments.py::test_a_moment[17]'`.
"""

from __future__ import annotations

import pytest

from tests.crash.conftest import Stage
from tests.crash.moment import MOMENTS, OF_A_CHANGE, Moment

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    "seed",
    [
        *range(OF_A_CHANGE),
        *(pytest.param(seed, marks=pytest.mark.crash) for seed in range(OF_A_CHANGE, MOMENTS)),
    ],
)
def test_a_moment(stage: Stage, seed: int) -> None:
    stage.play(Moment.of(seed))
