"""Space on the host's file systems: how much is free, and holding some before it is needed."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

from mitos.host import memory

__all__ = ["fault", "free_bytes", "release", "reserve"]

_LEAST_BYTES = 64 << 10
"""Less than this is nothing: programs write more at once, and then have written a part of it."""

_FALLOC_FL_KEEP_SIZE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.fallocate.restype = ctypes.c_int


def free_bytes(path: Path) -> int:
    """Bytes that may still be written on the file system of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def fault(path: Path) -> int | None:
    """Why nothing more can be written on the file system of `path`.

    Returns:
        `ENOSPC` when it has no block or no inode left, `EROFS` when it is read-only, else None.
    """
    found = os.statvfs(path)
    if found.f_flag & os.ST_RDONLY:
        return errno.EROFS
    has_inodes = found.f_files == 0 or found.f_favail > 0  # 0 of 0: it has no limit
    has_blocks = found.f_bavail * found.f_frsize >= _LEAST_BYTES
    return None if has_inodes and has_blocks else errno.ENOSPC


def reserve(
    descriptor: int,
    size_bytes: int,
    *,
    available: Callable[[], int] = memory.available_bytes,
) -> None:
    """Takes space for the first bytes of a file; its length stays as it is.

    On tmpfs the memory is charged to the caller instead of to whoever writes the bytes later. On a
    file system that cannot reserve, nothing happens. `release` gives back what was not used.

    Args:
        descriptor: the file.
        size_bytes: how much.
        available: memory that the host can spare, which is what a tmpfs is made of.

    Raises:
        OSError: the space is not there (`ENOSPC`, `EDQUOT`); nothing is held then.
    """
    # Asked first, because some file systems fill up before they refuse, to everybody's harm.
    found = os.fstatvfs(descriptor)
    free = found.f_bavail * found.f_frsize
    if size_bytes > (min(free, available()) if _is_in_memory(descriptor) else free):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        _allocate(descriptor, size_bytes)
    except OSError:
        # ext4 keeps what it got before it ran out.
        release(descriptor)
        raise


def release(descriptor: int) -> None:
    """Gives back the reserved space that lies behind the file's end."""
    os.ftruncate(descriptor, os.fstat(descriptor).st_size)


def _is_in_memory(descriptor: int) -> bool:
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.startswith("tmpfs ")
    return False


def _allocate(descriptor: int, size_bytes: int) -> None:
    while size_bytes > 0:
        if _libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, 0, size_bytes) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS):
            return
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
