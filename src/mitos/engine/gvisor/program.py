"""Where the engine's program is: the binary that `GvisorSettings.runsc` names.

The first of these that exists:

    $MITOS_RUNSC              any binary that the user names
    the package mitos_engine  the distribution `mitos-engine`, which `mitos-run[server]` brings
    <home>/bin/mitos-engine   the same, built from a checkout by `scripts/build-engine`
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

__all__ = ["INSTALL", "find"]

INSTALL = (
    "Run: pip install 'mitos-run[server]' (in a checkout: scripts/install), or name a runsc binary"
    " in MITOS_RUNSC."
)


def find(home: Path) -> Path:
    """The program's path in a process with this Mitos home; nothing may be there."""
    named = os.environ.get("MITOS_RUNSC")
    if named:
        return Path(named).absolute()
    return _installed() or home / "bin" / "mitos-engine"


def _installed() -> Path | None:
    try:
        package = importlib.import_module("mitos_engine")
    except ModuleNotFoundError:
        return None
    path: Path = package.program()
    return path if path.exists() else None
