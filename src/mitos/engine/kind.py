"""What the door knows of an engine: its name, its facts, how it is opened and installed.

Each engine's `kind.py` has one such value under the name `KIND`; `select` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitos.engine.base import Engine
from mitos.engine.facts import Facts

__all__ = ["EngineKind", "EngineSettings", "InstallError"]


class InstallError(Exception):
    """Something could not be installed; what was there before is unchanged."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What any engine is told from outside."""

    home: Path
    """The Mitos home; where in it things are, the engine knows. Engines that run at the same time
    must not share one.
    """


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine before it is opened.

    Attributes:
        name: what `mitos serve --engine` calls it; also its folder, and `Engine.name`.
        facts: what is true of it on every machine.
        open: makes the engine. Touches nothing: `Engine.probe` looks, `Engine.start` begins.
        install: puts the engine's program into the home and returns its path, or raises
            `InstallError`; None when there is nothing to install.
    """

    name: str
    facts: Facts
    open: Callable[[EngineSettings], Engine]
    install: Callable[[EngineSettings], Coroutine[Any, Any, Path]] | None = None
