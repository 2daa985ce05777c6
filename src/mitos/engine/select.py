"""The door to the engines: finds one by name. Nothing above this package names an engine itself.

An engine is a folder beside this file with a `kind.py`, and a row in the table here. It is imported
when it is asked for: who serves with one engine does not load the others.
"""

from __future__ import annotations

import importlib

from mitos.engine.kind import EngineKind

__all__ = ["AUTO", "UnknownEngineError", "find", "names", "resolve"]

AUTO = "auto"
"""Stands for the engine that suits most machines."""

_ENGINES = ("gvisor", "fake")
_SUITS_MOST = "gvisor"


class UnknownEngineError(LookupError):
    """No engine has that name."""


def names() -> tuple[str, ...]:
    """The names of all engines, `AUTO` not among them."""
    return _ENGINES


def resolve(name: str) -> str:
    """The name of the engine that is meant: `AUTO` becomes one, others stay as they are.

    Raises:
        UnknownEngineError: no engine has that name.
    """
    found = _SUITS_MOST if name == AUTO else name
    if found not in _ENGINES:
        known = ", ".join([AUTO, *_ENGINES])
        raise UnknownEngineError(f"there is no engine named {name!r}; use one of: {known}")
    return found


def find(name: str) -> EngineKind:
    """The engine of that name, imported now unless it was before.

    Args:
        name: one of `names()`, or `AUTO`.

    Raises:
        UnknownEngineError: no engine has that name.
    """
    kind = importlib.import_module(f"mitos.engine.{resolve(name)}.kind").KIND
    assert isinstance(kind, EngineKind)
    return kind
