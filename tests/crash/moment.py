"""The numbered moments: which point a number stands for, and what it draws by chance."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

from tests.crash.point import IDLE, POINTS, Point

__all__ = ["MOMENTS", "OF_A_CHANGE", "Moment", "of_variation"]

MOMENTS = 100

OF_A_CHANGE = 10
"""The first of them, one for each of so many operations."""

OF_VARIATION = 20
"""How many each variation has: the same with something wrong with the host."""

_FIRST = (
    *("create", "fork", "exec", "upload", "checkpoint", "hibernate", "wake", "promote", "build"),
    IDLE.operation,
)
_IDLE_TIMES = 5


def _order() -> tuple[Point, ...]:
    """The points by number: one of each of the first operations, all others, some again."""
    chance = random.Random(MOMENTS)
    by_operation: dict[str, list[Point]] = defaultdict(list)
    for point in POINTS:
        by_operation[point.operation].append(point)
    first = [chance.choice(by_operation[operation]) for operation in _FIRST]
    rest = [point for point in POINTS if point not in first] + [IDLE] * (_IDLE_TIMES - 1)
    again = [chance.choice(POINTS) for _ in range(MOMENTS - len(first) - len(rest))]
    chance.shuffle(rest)
    return (*first, *rest, *again)


_ORDER = _order()


@dataclass(frozen=True)
class Moment:
    """One moment.

    Attributes:
        seed: its number.
        point: where the server dies.
        chance: all else that is drawn.
    """

    seed: int
    point: Point
    chance: random.Random

    @classmethod
    def of(cls, seed: int) -> Moment:
        """The moment of a number; those past the last draw their point."""
        chance = random.Random(seed)
        point = _ORDER[seed] if seed < len(_ORDER) else chance.choice(POINTS)
        return cls(seed, point, chance)

    def __str__(self) -> str:
        return f"{self.seed}: {self.point.name}"


def of_variation(number: int) -> list[int]:
    """The numbers of a variation's moments; no two variations have the same."""
    first = MOMENTS + number * OF_VARIATION
    return list(range(first, first + OF_VARIATION))
