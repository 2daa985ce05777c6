"""When a machine's clock is right."""

from __future__ import annotations

import os
import time

import pytest

from mitos.agent.identity import make_identity
from mitos.wire.errors import ApiError
from mitos.wire.link import Fields, Tag

SECOND = 1_000_000_000
IDENTITY = make_identity("one", os.urandom)


@pytest.mark.parametrize(
    ("clock_s", "took_s", "is_right"),
    [
        (0, 0, True),
        (-0.9, 0, True),
        (-1.1, 0, False),
        (0.9, 0, True),
        (1.1, 0, False),
        (0.1, 14, True),
        (13.9, 14, True),
        (14.9, 14, True),
        (15.1, 14, False),
        (-1.1, 14, False),
        (600, 14, False),
        (-600, 14, False),
    ],
)
def test_a_clock_is_right_between_question_and_answer(
    clock_s: float, took_s: float, is_right: bool
) -> None:
    sent = time.time_ns()
    answer = Fields().raw(Tag.GENERATION, IDENTITY.generation)
    answer.uint(Tag.WALL_CLOCK, sent + round(clock_s * SECOND))
    received = sent + round(took_s * SECOND)

    if is_right:
        IDENTITY.check(answer, sent_ns=sent, received_ns=received)
        return
    with pytest.raises(ApiError, match="clock is off by") as caught:
        IDENTITY.check(answer, sent_ns=sent, received_ns=received)
    assert caught.value.code == "internal"
