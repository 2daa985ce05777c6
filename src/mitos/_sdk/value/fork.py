"""Forks of a sandbox, the sandboxes that are related by them, and snapshots to go back to."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from mitos.errors import AgentRunError

__all__ = ["Checkpoint", "ForkPolicy", "Forked", "Relative"]

_Sandbox = TypeVar("_Sandbox")


class ForkPolicy(str, enum.Enum):
    """What a child of a fork does with something its source has.

    Example:
        >>> ForkPolicy.FRESH == "Fresh"
        True
    """

    FRESH = "Fresh"
    SHARE = "Share"
    CLONE = "Clone"
    SNAPSHOT = "Snapshot"


class Forked(list[_Sandbox]):
    """The children of a fork, in the order of their ids.

    Attributes:
        errors: of a partial fork, why an id did not come up; otherwise empty.

    Example:
        >>> children = sb.fork(2, partial=True)
        >>> len(children), children.errors
        (2, {})
    """

    def __init__(
        self, children: Iterable[_Sandbox] = (), errors: dict[str, AgentRunError] | None = None
    ) -> None:
        super().__init__(children)
        self.errors = errors or {}


@dataclass(frozen=True)
class Relative:
    """A sandbox of a fork tree, running or ended. Times are unix seconds.

    Attributes:
        uid: never used again, as an `id` can be.
        parent_uid: the `uid` it was forked from; None for the first.
        phase: as the sandbox's own, or `Ended`.
        ended_at_unix: None while it lives.
        reason: why it ended; None while it lives.

    Example:
        >>> sb.tree()[0].id == sb.id
        True
    """

    uid: str
    id: str
    parent_uid: str | None
    template: str
    created_at_unix: float
    phase: str
    ended_at_unix: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot kept of a sandbox.

    Attributes:
        id: for `restore`.
        name: the label it was given; may be empty.
        size_bytes: what it takes on the server's disk.

    Example:
        >>> sb.checkpoint("before").name
        'before'
    """

    id: str
    name: str
    created_at: datetime
    size_bytes: int
