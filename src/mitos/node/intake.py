"""Whether a node takes new work (creates, forks, builds of templates), and what is under way."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mitos.node.refusal import draining

__all__ = ["Intake", "Kind", "Left"]


class Kind(str, enum.Enum):
    """What a drained node may still have to do with."""

    SANDBOX = "sandbox"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that a node waits for while it is drained.

    Attributes:
        why: it is not done with, as a sentence without its subject.
    """

    kind: Kind
    id: str
    why: str


class Intake:
    """Takes new work, or refuses it.

    Attributes:
        is_open: new work is taken.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._under_way: list[Left] = []

    @contextlib.contextmanager
    def taking(self, kind: Kind, ids: Sequence[str]) -> Iterator[None]:
        """Holds work while it is done.

        Raises:
            ApiError: the node is drained.
        """
        if not self.is_open:
            raise draining()
        why = "is being created" if kind is Kind.SANDBOX else "is being built"
        work = [Left(kind, each, why) for each in ids]
        self._under_way += work
        try:
            yield
        finally:
            for each in work:
                self._under_way.remove(each)

    def under_way(self) -> list[Left]:
        """The work that was taken and is not done."""
        return list(self._under_way)
