"""What the door knows of an engine: its name, its facts, and how it is opened.

Each engine's `kind.py` has one such value under the name `KIND`; `select` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mitos.engine.base import Engine
from mitos.engine.facts import Facts

__all__ = ["EngineKind", "EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What any engine is told from outside."""

    home: Path
    """The Mitos home; where in it things are, the engine knows. Engines that run at the same time
    must not share one.
    """

    scratch: Path | None = None
    """Where snapshots may lie for a moment, if not in the home."""


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine before it is opened.

    Attributes:
        name: what `mitos serve --engine` calls it; also its folder, and `Engine.name`.
        facts: what is true of it on every machine.
        open: makes the engine. Touches nothing: `Engine.probe` looks, `Engine.start` begins.
    """

    name: str
    facts: Facts
    open: Callable[[EngineSettings], Engine]
