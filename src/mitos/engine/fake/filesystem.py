"""A file system in memory: folders, files, links and a few devices by absolute path.

Contents are replaced, never changed in place, so a reader goes on with what it opened. Every method
raises `OSError` with the errno and the path that a kernel would give.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["Entry", "FileSystem", "fail"]

WORKSPACE = "/workspace"
CHUNK_BYTES = 1 << 16
LINK_LIMIT = 40
NAME_LIMIT = 255
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_FOLDERS = ("/", "/dev", "/etc", "/proc", "/root", "/sys", "/tmp", WORKSPACE)  # noqa: S108
_PROTECTED = ("/", "/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at a path.

    Attributes:
        mode: as `st_mode`.
        modified_at: unix seconds.
        pieces: a file's content; many, so that a file can grow without being copied.
        length_bytes: of all pieces.
        target: of a link.
    """

    mode: int
    modified_at: int
    pieces: tuple[bytes, ...] = ()
    length_bytes: int = 0
    target: str = ""

    @property
    def is_directory(self) -> bool:
        """True for a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """True for a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        """True for one of `/dev`."""
        return stat.S_ISCHR(self.mode)

    @property
    def size_bytes(self) -> int:
        """As `stat` gives it."""
        return len(os.fsencode(self.target)) if self.is_link else self.length_bytes

    @property
    def content(self) -> bytes:
        """The whole of a file."""
        return b"".join(self.pieces)


def fail(number: int, path: str) -> OSError:
    """The error a kernel would give."""
    return OSError(number, os.strerror(number), path)


class FileSystem:
    """The tree of one machine.

    Args:
        limit_bytes: what all files may hold together.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: dict[str, Entry] = {}
        for path in _FOLDERS:
            self._put(path, Entry(stat.S_IFDIR | 0o755, _now()))
        for path in _DEVICES:
            self._put(path, Entry(stat.S_IFCHR | 0o666, _now()))

    @property
    def size_bytes(self) -> int:
        """What all files hold together."""
        return sum(entry.length_bytes for entry in self._entries.values())

    def locate(self, path: str, *, cwd: str = WORKSPACE, follow: bool = True) -> str:
        """The absolute path without links; only its last part may be missing.

        Args:
            path: relative ones start at `cwd`.
            cwd: an absolute path.
            follow: whether a link in the last part is followed.
        """
        parts = posixpath.join(cwd, path).split("/")[::-1]
        found, links = "/", 0
        while parts:
            part = parts.pop()
            if len(os.fsencode(part)) > NAME_LIMIT:
                raise fail(errno.ENAMETOOLONG, path)
            if part in ("", "."):
                continue
            self._require_directory(found, path)
            if part == "..":
                found = posixpath.dirname(found)
                continue
            entry = self._entries.get(child := posixpath.join(found, part))
            if entry is None or not entry.is_link or not (follow or any(parts)):
                found = child
                continue
            links += 1
            if links > LINK_LIMIT:
                raise fail(errno.ELOOP, path)
            found = "/" if entry.target.startswith("/") else found
            parts += entry.target.split("/")[::-1]
        return found

    def stat(self, path: str, *, cwd: str = WORKSPACE, follow: bool = False) -> Entry:
        """What is there."""
        entry = self._entries.get(self.locate(path, cwd=cwd, follow=follow))
        if entry is None:
            raise fail(errno.ENOENT, path)
        return entry

    def exists(self, path: str, *, cwd: str = WORKSPACE) -> bool:
        """True when something is there, links followed."""
        try:
            self.stat(path, cwd=cwd, follow=True)
        except OSError:
            return False
        return True

    def read(self, path: str, *, cwd: str = WORKSPACE) -> Iterator[bytes]:
        """A file's content in pieces; devices give theirs without end."""
        full = self.locate(path, cwd=cwd)
        entry = self.stat(full)
        if entry.is_directory:
            raise fail(errno.EISDIR, path)
        if entry.is_device:
            return _device_content(full)
        return iter(entry.pieces)

    def write(
        self,
        path: str,
        content: bytes,
        *,
        cwd: str = WORKSPACE,
        mode: int = 0,
        append: bool = False,
    ) -> None:
        """Replaces or extends a file, which keeps its mode; its folder must exist."""
        full = self.locate(path, cwd=cwd)
        self._require_directory(posixpath.dirname(full), path)
        old = self._entries.get(full) or Entry(stat.S_IFREG | (mode or 0o644), 0)
        if old.is_directory:
            raise fail(errno.EISDIR, path)
        if old.is_device:
            return
        kept = list(old.pieces) if append else []
        length_bytes = len(content) + (old.length_bytes if append else 0)
        if self.size_bytes - old.length_bytes + length_bytes > self.limit_bytes:
            raise fail(errno.ENOSPC, path)
        if kept and len(kept[-1]) + len(content) <= CHUNK_BYTES:
            content = kept.pop() + content
        starts = range(0, len(content), CHUNK_BYTES)
        pieces = (*kept, *(content[start : start + CHUNK_BYTES] for start in starts))
        self._put(full, replace(old, pieces=pieces, length_bytes=length_bytes, modified_at=_now()))

    def make_directory(
        self, path: str, *, cwd: str = WORKSPACE, mode: int = 0, parents: bool = True
    ) -> None:
        """Makes a folder; with `parents`, those above it too, and an existing one is fine."""
        full, made = posixpath.join(cwd, path), "/"
        for part in [part for part in full.split("/") if part and parents]:
            made = self.locate(posixpath.join(made, part))
            if made not in self._entries:
                self._put(made, Entry(stat.S_IFDIR | (mode or 0o755), _now()))
        full = self.locate(full)
        if full in self._entries and not (parents and self._entries[full].is_directory):
            raise fail(errno.EEXIST, path)
        if full not in self._entries:
            self._require_directory(posixpath.dirname(full), path)
            self._put(full, Entry(stat.S_IFDIR | (mode or 0o755), _now()))

    def make_link(self, target: str, path: str, *, cwd: str = WORKSPACE) -> None:
        """Makes a symbolic link; the target need not exist."""
        full = self.locate(path, cwd=cwd, follow=False)
        if full in self._entries:
            raise fail(errno.EEXIST, path)
        self._require_directory(posixpath.dirname(full), path)
        self._put(full, Entry(stat.S_IFLNK | 0o777, _now(), target=target))

    def change_mode(self, path: str, mode: int, *, cwd: str = WORKSPACE) -> None:
        """Sets the permission bits."""
        entry = self.stat(path, cwd=cwd, follow=True)
        kind = stat.S_IFMT(entry.mode)
        self._entries[self.locate(path, cwd=cwd)] = replace(entry, mode=kind | mode & 0o7777)

    def move(self, source: str, path: str, *, cwd: str = WORKSPACE) -> None:
        """Renames a file or tree; a file at the target is replaced."""
        old = self.locate(source, cwd=cwd, follow=False)
        new = self.locate(path, cwd=cwd, follow=False)
        if self.stat(old).is_directory and (new + "/").startswith(old + "/"):
            raise fail(errno.EINVAL, path)
        if old in _PROTECTED:
            raise fail(errno.EBUSY, path)
        if new in self._entries and self._entries[new].is_directory:
            raise fail(errno.EISDIR, path)
        self._require_directory(posixpath.dirname(new), path)
        for name in [old, *self._inside(old)]:
            self._entries[new + name[len(old) :]] = self._entries.pop(name)

    def remove(self, path: str, *, cwd: str = WORKSPACE, recursive: bool) -> None:
        """Removes a file or tree; a missing path is fine, a link is not followed."""
        try:
            full = self.locate(path, cwd=cwd, follow=False)
        except FileNotFoundError:
            return
        if full in _PROTECTED:
            raise fail(errno.EBUSY, path)
        inside = self._inside(full)
        if inside and not recursive:
            raise fail(errno.ENOTEMPTY, path)
        for name in (full, *inside):
            self._entries.pop(name, None)

    def entries(self, path: str, *, cwd: str = WORKSPACE) -> list[tuple[str, Entry]]:
        """The entries of a folder as path and entry, sorted; for anything else, that one."""
        itself = self.stat(path, cwd=cwd)
        full = self.locate(path, cwd=cwd)
        if full not in self._entries or not self._entries[full].is_directory:
            return [(self.locate(path, cwd=cwd, follow=False), itself)]
        children = (n for n in self._entries if n != "/" and posixpath.dirname(n) == full)
        return [(name, self._entries[name]) for name in sorted(children, key=os.fsencode)]

    def _inside(self, full: str) -> list[str]:
        return [name for name in self._entries if name.startswith(full.rstrip("/") + "/")]

    def _require_directory(self, full: str, path: str) -> None:
        if full not in self._entries:
            raise fail(errno.ENOENT, path)
        if not self._entries[full].is_directory:
            raise fail(errno.ENOTDIR, path)

    def _put(self, full: str, entry: Entry) -> None:
        parent = posixpath.dirname(full)
        if full not in self._entries and parent in self._entries:
            self._entries[parent] = replace(self._entries[parent], modified_at=_now())
        self._entries[full] = entry


def _device_content(full: str) -> Iterator[bytes]:
    while full != "/dev/null":
        yield bytes(CHUNK_BYTES) if full == "/dev/zero" else os.urandom(CHUNK_BYTES)


def _now() -> int:
    return int(time.time())
