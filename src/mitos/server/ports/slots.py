"""Slots of each sandbox: so many of something at the same time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["Slots"]

_Key = TypeVar("_Key", bound=Hashable)


class Slots(Generic[_Key]):
    """Counts what is open, by key."""

    def __init__(self) -> None:
        self._taken: Counter[_Key] = Counter()

    @contextlib.contextmanager
    def take(self, key: _Key, limit: int) -> Iterator[bool]:
        """Takes a slot for the time of the block; False when so many are taken already."""
        if self._taken[key] >= limit:
            yield False
            return
        self._taken[key] += 1
        try:
            yield True
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
