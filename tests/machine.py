"""What tests with real sandboxes need from the machine."""

from __future__ import annotations

import os
from pathlib import Path

from mitos.engine.gvisor import install

__all__ = ["borrow_cache", "mitos_home", "runsc", "why_no_real_sandboxes"]


def mitos_home() -> Path:
    """Where expensive things are cached across runs; the same rule as the command line's."""
    return Path(os.environ.get("MITOS_HOME") or "/var/lib/mitos")


def runsc() -> Path:
    """The binary that `scripts/install` puts in place."""
    return install.runsc_path(mitos_home())


def why_no_real_sandboxes() -> str:
    """The reason real sandboxes cannot run here, or an empty string."""
    if os.geteuid() != 0:
        return "real sandboxes need root on this machine"
    if not runsc().exists():
        return "runsc is not installed: run scripts/install"
    return ""


def borrow_cache(home: Path) -> None:
    """Gives a home of a test's own the machine's downloads and root filesystems."""
    for name in ("bin", "rootfs"):
        (mitos_home() / name).mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(mitos_home() / name)
