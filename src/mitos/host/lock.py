"""A lock between processes: a file that one of them holds, until it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LockedError", "held"]


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock while the block runs; the kernel frees it if the process dies.

    Args:
        path: the lock file, made if absent and left there.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise LockedError(f"{path} is held by another process") from exc
        yield
    finally:
        os.close(descriptor)
