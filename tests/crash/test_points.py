"""The table of points is true: each function is there, and each point has its moments."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from tests.crash.moment import MOMENTS, OF_A_CHANGE, Moment
from tests.crash.operation import OPERATIONS
from tests.crash.point import IDLE, POINTS, Point, find, locate
from tests.crash.server import kinds

KILLS = 5
"""Of each operation, at the least."""


@pytest.mark.parametrize("point", [each for each in POINTS if each != IDLE], ids=lambda p: p.name)
def test_a_point_is_a_place_in_a_function_that_there_is(point: Point) -> None:
    owner, name = locate(point.function)
    found = inspect.getattr_static(owner, name)

    assert point.when in kinds(getattr(found, "__func__", found))


def test_a_function_that_is_gone_is_told() -> None:
    with pytest.raises(LookupError):
        locate("mitos.node.machine.pool.Pool.no_such_function")
    with pytest.raises(LookupError):
        locate("mitos.no_such_module.Pool.close")


def test_names_lead_to_their_points() -> None:
    assert list(POINTS) == [find(point.name) for point in POINTS]


def test_each_point_has_a_moment_and_each_operation_several() -> None:
    moments = [Moment.of(seed) for seed in range(MOMENTS)]

    assert 100 == len(moments)
    assert set(POINTS) == {moment.point for moment in moments}
    kills = Counter(moment.point.operation for moment in moments)
    assert OPERATIONS.keys() == kills.keys()
    assert min(kills.values()) >= KILLS


def test_the_moments_of_a_change_are_of_as_many_operations() -> None:
    operations = {Moment.of(seed).point.operation for seed in range(OF_A_CHANGE)}

    assert OF_A_CHANGE == len(operations)
