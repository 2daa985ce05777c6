"""A file system in memory: folders and files by absolute path."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from dataclasses import dataclass

__all__ = ["Entry", "FileSystem", "fail"]

WORKSPACE = "/workspace"
DEVICE_NAMES = ("/dev/urandom", "/dev/null", "/dev/zero")
_PROTECTED = ("/", "/proc", "/sys", "/dev")


@dataclass
class Entry:
    """What is at a path."""

    mode: int
    modified_at: int
    content: bytes = b""

    @property
    def is_directory(self) -> bool:
        """True for a folder."""
        return stat.S_ISDIR(self.mode)


def fail(number: int, path: str) -> OSError:
    """The error a kernel would give."""
    return OSError(number, os.strerror(number), path)


class FileSystem:
    """Folders and files; every method raises `OSError` as a kernel would."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        for path in ("/", WORKSPACE, "/tmp", "/etc", "/dev", "/root"):  # noqa: S108  inside the fake
            self._entries[path] = Entry(stat.S_IFDIR | 0o755, int(time.time()))
        for path in DEVICE_NAMES:
            self._entries[path] = Entry(stat.S_IFCHR | 0o666, int(time.time()))

    def resolve(self, path: str) -> str:
        """The absolute, normal form; relative paths start at the workspace."""
        return posixpath.normpath(posixpath.join(WORKSPACE, path)).replace("//", "/")

    def stat(self, path: str) -> Entry:
        """What is there."""
        entry = self._entries.get(self.resolve(path))
        if entry is None:
            raise fail(errno.ENOENT, path)
        return entry

    def read(self, path: str) -> bytes:
        """A file's content."""
        entry = self.stat(path)
        if entry.is_directory:
            raise fail(errno.EISDIR, path)
        if self.resolve(path) == "/dev/urandom":
            return os.urandom(1 << 16)
        return entry.content

    def write(self, path: str, content: bytes, mode: int = 0) -> None:
        """Replaces a file; parents are made, an existing file keeps its mode."""
        full = self.resolve(path)
        old = self._entries.get(full)
        if old is not None and old.is_directory:
            raise fail(errno.EISDIR, path)
        if full in DEVICE_NAMES:
            return
        self.make_directory(posixpath.dirname(full))
        kept = old.mode if old else stat.S_IFREG | (mode or 0o644)
        self._entries[full] = Entry(kept, int(time.time()), content)

    def make_directory(self, path: str) -> None:
        """Makes a folder and its parents."""
        full = self.resolve(path)
        entry = self._entries.get(full)
        if entry is not None and not entry.is_directory:
            raise fail(errno.EEXIST, path)
        if entry is None:
            parent = posixpath.dirname(full)
            if parent in self._entries and not self._entries[parent].is_directory:
                raise fail(errno.ENOTDIR, path)
            self.make_directory(parent)
            self._entries[full] = Entry(stat.S_IFDIR | 0o755, int(time.time()))

    def remove(self, path: str, *, recursive: bool) -> None:
        """Removes a file or tree; a missing path is fine."""
        full = self.resolve(path)
        if full in _PROTECTED:
            raise fail(errno.EBUSY, path)
        inside = [name for name in self._entries if name.startswith(full + "/")]
        if inside and not recursive:
            raise fail(errno.ENOTEMPTY, path)
        for name in (*inside, full):
            self._entries.pop(name, None)

    def list(self, path: str) -> list[tuple[str, Entry]]:
        """The entries of a folder as path and entry, sorted; for a file, that one."""
        full = self.resolve(path)
        if not self.stat(path).is_directory:
            return [(full, self._entries[full])]
        children = (n for n in self._entries if n != "/" and posixpath.dirname(n) == full)
        return [(name, self._entries[name]) for name in sorted(children)]
