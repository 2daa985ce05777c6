"""The fake engine as `mitos.engine.select` finds it. There is nothing to install."""

from __future__ import annotations

from mitos.engine.fake.engine import FakeEngine
from mitos.engine.kind import EngineKind, EngineSettings

__all__ = ["KIND"]


def _open(_: EngineSettings) -> FakeEngine:
    return FakeEngine()


KIND = EngineKind(name=FakeEngine.name, facts=FakeEngine.facts, open=_open)
