"""Files and folders that nobody but their owner may open, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

__all__ = ["make_file", "make_folder", "others_may_open", "secret", "tighten"]

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


def secret(path: Path) -> bytes:
    """The secret in a file, made if there is none: 32 random bytes, in hex.

    Written whole or not at all; one that another process has just made stays.

    Raises:
        OSError: it can be neither read nor made.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}-") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    tighten(path)
    return path.read_bytes()


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
