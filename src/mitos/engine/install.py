"""Installs what an engine needs into the Mitos home: `python -m mitos.engine.install --home HOME`.

`scripts/install` runs this file as a program. What there is to fetch, and how, each engine knows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from mitos.engine import select
from mitos.engine.kind import EngineSettings, InstallError

__all__ = ["main"]


def main() -> int:
    """Installs the engine that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mitos.engine.install")
    parser.add_argument("--home", type=Path, required=True, help="the Mitos home")
    parser.add_argument("--engine", choices=[select.AUTO, *select.names()], default=select.AUTO)
    arguments = parser.parse_args()
    kind = select.find(arguments.engine)
    if kind.install is None:
        sys.stderr.write(f"the engine {kind.name} needs nothing installed\n")
        return 0
    os.umask(0o022)
    try:
        program = asyncio.run(kind.install(EngineSettings(arguments.home)))
    except InstallError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stderr.write(f"the engine {kind.name} uses {program.resolve()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
