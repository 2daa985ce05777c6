"""The gVisor engine as `mitos.engine.select` finds it, and where it keeps things in a Mitos home.

<home>/bin/runsc    its program
<home>/run/         its state
"""

from __future__ import annotations

from pathlib import Path

from mitos.engine.gvisor import install
from mitos.engine.gvisor.engine import GvisorEngine
from mitos.engine.gvisor.settings import GvisorSettings
from mitos.engine.kind import EngineKind, EngineSettings

__all__ = ["KIND"]


def _open(settings: EngineSettings) -> GvisorEngine:
    home = settings.home
    return GvisorEngine(GvisorSettings(runsc=install.runsc_path(home), state=home / "run"))


async def _install(settings: EngineSettings) -> Path:
    return await install.install_runsc(settings.home)


KIND = EngineKind(name=GvisorEngine.name, facts=GvisorEngine.facts, open=_open, install=_install)
