"""What tests with real sandboxes need from the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mitos.engine.gvisor import program, release
from mitos.engine.gvisor.release import Release

__all__ = ["borrow_cache", "mitos_home", "running_release", "runsc", "why_no_real_sandboxes"]


def mitos_home() -> Path:
    """Where expensive things are cached across runs; the same rule as the command line's."""
    return Path(os.environ.get("MITOS_HOME") or "/var/lib/mitos")


def runsc() -> Path:
    """The binary that `scripts/install` puts in place, or the one that MITOS_RUNSC names."""
    return program.find(mitos_home())


def running_release() -> Release:
    """The release of that binary."""
    said = subprocess.run([runsc(), "--version"], capture_output=True, text=True, check=True)
    found = release.parse(said.stdout)
    assert found is not None
    return found


def why_no_real_sandboxes() -> str:
    """The reason real sandboxes cannot run here, or an empty string."""
    if os.geteuid() != 0:
        return "real sandboxes need root on this machine"
    if not runsc().exists():
        return "the engine is not installed: run scripts/install"
    return ""


def borrow_cache(home: Path) -> None:
    """Gives a home of a test's own the machine's downloads and root filesystems."""
    for name in ("bin", "rootfs"):
        (mitos_home() / name).mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(mitos_home() / name)
