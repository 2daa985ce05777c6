"""Work on a folder that will be a root filesystem, never following its symbolic links.

The content is somebody else's: a link in it may point anywhere on the host, so each step down goes
by descriptor and refuses links.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["digest", "fingerprint", "open_directory", "remove", "size_bytes", "strip", "write"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 20


@contextlib.contextmanager
def open_directory(
    root: Path, path: PurePosixPath | str = "", *, mode: int | None = 0o755
) -> Iterator[int]:
    """Opens a folder beneath `root`; gives its descriptor for the length of the context.

    Args:
        root: a trusted path.
        path: relative to `root`; its parts must be folders, not links.
        mode: permissions of folders that are missing and made; None makes none.

    Raises:
        OSError: a part is missing, or is not a folder.
    """
    current = os.open(root, _OPEN)
    try:
        for part in PurePosixPath(path).parts:
            if mode is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=current)
            child = os.open(part, _OPEN, dir_fd=current)
            os.close(current)
            current = child
        yield current
    finally:
        os.close(current)


def write(root: Path, path: str, content: str) -> None:
    """Puts a file of mode 0644 at `path` beneath `root`, in place of whatever is there."""
    target = PurePosixPath(path)
    with open_directory(root, target.parent) as parent:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target.name, dir_fd=parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(target.name, flags, 0o644, dir_fd=parent), "w") as stream:  # noqa: PTH123
            os.fchmod(stream.fileno(), 0o644)
            stream.write(content)


def remove(root: Path, path: str, *, content_only: bool = False) -> None:
    """Removes a file or folder beneath `root`, or only what is in the folder. Absent is fine."""
    target = PurePosixPath(path)
    with (
        contextlib.suppress(FileNotFoundError),
        open_directory(root, target.parent, mode=None) as parent,
    ):
        found = os.stat(target.name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(target.name, dir_fd=parent)
            return
        _empty(parent, target.name)
        if not content_only:
            os.rmdir(target.name, dir_fd=parent)


def strip(root: Path) -> int:
    """Removes what is no file, folder or link (device nodes, sockets); returns how many."""
    count = 0
    for _, _, names, directory in os.fwalk(root, follow_symlinks=False):
        for name in names:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
                os.unlink(name, dir_fd=directory)
                count += 1
    return count


def size_bytes(root: Path) -> int:
    """Bytes the tree takes on disk."""
    return sum(found.st_blocks * 512 for _, _, found, _ in _entries(root))


def fingerprint(root: Path) -> str:
    """A hash of the tree's names, kinds, owners, sizes and times: changes when a file is touched.

    Raises:
        OSError: a part cannot be read.
    """
    seen = hashlib.sha256()
    for path, target, found, _ in _entries(root):
        seen.update(_line(path, target, found, found.st_mtime_ns, found.st_ino))
    return seen.hexdigest()


def digest(root: Path) -> str:
    """A hash of all that a sandbox could see of the tree, contents and times included."""
    seen = hashlib.sha256()
    for path, target, found, opened in _entries(root):
        seen.update(_line(path, target, found, int(found.st_mtime)))
        if stat.S_ISREG(found.st_mode):
            directory, name = opened
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            with open(descriptor, "rb", buffering=0) as stream:  # noqa: PTH123
                while data := stream.read(_READ_BYTES):
                    seen.update(data)
    return seen.hexdigest()


def _entries(root: Path) -> Iterator[tuple[str, str, os.stat_result, tuple[int, str]]]:
    """Every entry in a fixed order: its path, link target, status, and how to open it."""
    for parent, folders, names, directory in os.fwalk(root, follow_symlinks=False):
        folders.sort()
        for name in sorted([*folders, *names]):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            is_link = stat.S_ISLNK(found.st_mode)
            target = os.readlink(name, dir_fd=directory) if is_link else ""
            path = os.path.relpath(os.path.join(parent, name), root)  # noqa: PTH118
            yield path, target, found, (directory, name)


def _line(path: str, target: str, found: os.stat_result, *more: int) -> bytes:
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    values = (path, target, found.st_mode, found.st_uid, found.st_gid, size, *more)
    return os.fsencode("\0".join(map(str, values)) + "\0\n")


def _empty(parent: int, name: str) -> None:
    for _, folders, names, directory in os.fwalk(
        name, topdown=False, follow_symlinks=False, dir_fd=parent
    ):
        for entry in names:
            os.unlink(entry, dir_fd=directory)
        for entry in folders:
            _remove_folder(entry, directory)


def _remove_folder(name: str, parent: int) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)  # a link to a folder is listed among the folders
