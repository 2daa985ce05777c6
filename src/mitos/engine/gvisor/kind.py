"""The gVisor engine as `mitos.engine.select` finds it, and where it keeps things in a Mitos home.

<home>/bin/mitos-engine    its program, where no installed package brings it
<home>/run/                its state
"""

from __future__ import annotations

from mitos.engine.gvisor import program
from mitos.engine.gvisor.engine import GvisorEngine
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.kind import EngineKind, EngineSettings

__all__ = ["KIND"]


def _open(settings: EngineSettings) -> GvisorEngine:
    home, scratch = settings.home, settings.scratch
    copies = None if scratch is None else scratch / "copies"
    return GvisorEngine(GvisorSettings(runsc=program.find(home), state=home / "run", copies=copies))


KIND = EngineKind(name=GvisorEngine.name, facts=GvisorEngine.facts, open=_open)
