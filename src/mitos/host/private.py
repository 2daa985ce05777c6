"""Files and folders that nobody but their owner may open, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["make_file", "make_folder", "others_may_open", "tighten"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_folder(path: Path) -> None:
    """Makes a folder, with its parents, or tightens one that is there.

    Raises:
        OSError: it cannot be made, or is somebody else's.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    tighten(path)


def make_file(path: Path) -> None:
    """Makes an empty file, or tightens one that is there and leaves what it holds.

    Raises:
        OSError: it cannot be made or opened, or is somebody else's.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    tighten(path)


def tighten(path: Path) -> None:
    """Takes every right from group and others.

    Raises:
        OSError: it is absent, or somebody else's.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if others_may_open(mode):
        path.chmod(mode & ~_OTHERS)


def others_may_open(mode: int) -> bool:
    """Whether a mode gives group or others any right."""
    return bool(mode & _OTHERS)
