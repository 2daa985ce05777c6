"""What a target is, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mitos.errors import AgentRunError
from mitos.wire.link import LinkError

__all__ = ["VECTORS", "Target", "halves", "outcome"]

VECTORS = Path(__file__).parents[3] / "spec" / "vectors"


@dataclass(frozen=True)
class Target:
    """A decoder.

    Attributes:
        run: gives it the bytes; raises what a fuzzer has to report.
        modules: whose lines are counted as covered or not.
        seeds: inputs to begin with, from the vectors of the specification.
    """

    run: Callable[[bytes], None]
    modules: tuple[ModuleType, ...]
    seeds: Callable[[], Iterator[bytes]]


def halves(data: bytes) -> tuple[bytes, bytes]:
    """The data in two parts, cut where its last byte says."""
    cut = data[-1] % len(data) if data else 0
    return data[:cut], data[cut:]


def outcome(feed: Callable[[bytes], Iterator[Any]], parts: tuple[bytes, ...]) -> list[Any]:
    """What a decoder of a stream yields, and whether it refused what came after that."""
    found: list[Any] = []
    try:
        for part in parts:
            found.extend(feed(part))
    except (LinkError, AgentRunError):
        found.append("refused")
    return found
