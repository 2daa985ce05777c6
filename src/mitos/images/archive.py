"""Unpacking a tar archive as a root filesystem, beneath a folder and nowhere else.

An archive is hostile until shown otherwise. Every name is walked down by descriptor without
following links, so neither `..` nor a link placed earlier in the archive leads out. Symbolic links
are kept as they are, whatever they point to: they mean something inside the sandbox only, and
nothing here follows them. Device nodes, sockets and pipes are left out. Python's own extraction
filters refuse the absolute links that root filesystems are full of, and older 3.11 has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mitos.host import disk, process
from mitos.images import tree
from mitos.images.image import ArchiveImage, ImageBuildError

__all__ = ["ArchiveMaker", "Limits", "decompress", "extract"]

_COPY_BYTES = 1 << 20
_DECOMPRESS_TIMEOUT_S = 1800.0
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may unpack to.

    Attributes:
        size_bytes: of all files together; a root filesystem of 16 GiB is a large one.
        entries: files, folders and links.
        spare_bytes: space that stays free on the disk, so that a bomb cannot stop the machine.
    """

    size_bytes: int = 16 * _GIB
    entries: int = 1_000_000
    spare_bytes: int = _GIB


@dataclass(frozen=True, slots=True)
class ArchiveMaker:
    """Unpacks the archive of an image."""

    image: ArchiveImage
    limits: Limits

    def fingerprint(self) -> str:
        """The archive's bytes."""
        with self.image.path.open("rb") as stream:
            return f"archive\n{hashlib.file_digest(stream, 'sha256').hexdigest()}"

    async def fill(self, root: Path, progress: Callable[[str], None]) -> None:
        """Unpacks the archive.

        Raises:
            ImageBuildError: as `extract`.
        """
        progress(f"unpacking {self.image.path}")
        readable = await decompress(self.image.path, root.parent, self.limits)
        cancelled = threading.Event()
        work = asyncio.ensure_future(
            asyncio.to_thread(extract, readable, root, limits=self.limits, cancelled=cancelled)
        )
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread must have let go of the folder before it is removed.
            cancelled.set()
            with contextlib.suppress(ImageBuildError):
                await work
            raise


async def decompress(archive: Path, directory: Path, limits: Limits) -> Path:
    """Returns an archive that `extract` can read: itself, or a decompressed copy in `directory`.

    Python reads gzip, bzip2 and xz; Zstandard goes through the program `zstd`.

    Raises:
        ImageBuildError: `zstd` is missing or fails.
    """
    if archive.suffix not in (".zst", ".tzst"):
        return archive
    plain = directory / "archive.tar"
    argv: list[str | Path] = ["prlimit", f"--fsize={limits.size_bytes}", "zstd", "-dqf"]
    try:
        await process.run([*argv, archive, "-o", plain], timeout_s=_DECOMPRESS_TIMEOUT_S)
    except process.CommandError as exc:
        raise ImageBuildError(f"{archive} could not be decompressed: {exc}") from exc
    return plain


def extract(archive: Path, root: Path, *, limits: Limits, cancelled: threading.Event) -> None:
    """Unpacks an archive into an empty folder. Blocking: run it in a thread.

    Args:
        archive: a tar file, plain or compressed with gzip, bzip2 or xz.
        root: an existing folder.
        limits: what is refused as too large.
        cancelled: once set, the work ends soon with an error.

    Raises:
        ImageBuildError: the archive is damaged, too large, or reaches out of `root`; what was
            unpacked so far is still there for the caller to remove.
    """
    try:
        with tarfile.open(archive) as opened:
            _Extraction(opened, root, limits, cancelled).run()
    except (tarfile.TarError, EOFError, OSError, ValueError) as exc:
        raise ImageBuildError(f"{archive} could not be unpacked: {exc}") from exc
    except Exception as exc:
        # zlib and lzma have error classes of their own for damaged data.
        if type(exc).__module__ not in ("zlib", "_lzma", "lzma"):
            raise
        raise ImageBuildError(f"{archive} is damaged: {exc}") from exc


class _Extraction:
    """One archive on its way into one folder."""

    def __init__(
        self, archive: tarfile.TarFile, root: Path, limits: Limits, cancelled: threading.Event
    ) -> None:
        self._archive = archive
        self._root = root
        self._limits = limits
        self._cancelled = cancelled
        self._remaining_bytes = limits.size_bytes
        self._is_root = os.geteuid() == 0
        self._folders: list[tuple[PurePosixPath, tarfile.TarInfo]] = []

    def run(self) -> None:
        for count, member in enumerate(self._archive):
            if count >= self._limits.entries:
                raise ImageBuildError(f"it has more than {self._limits.entries} entries")
            self._place(member)
        # Permissions and times of folders come last: a read-only one could not be filled.
        for path, member in reversed(self._folders):
            with tree.open_directory(self._root, path, mode=None) as descriptor:
                self._set_attributes(descriptor, member)
        self._read_to_end()

    def _read_to_end(self) -> None:
        """Reads what follows the last entry: a compressor's checksum stands at the very end."""
        stream = self._archive.fileobj
        while stream is not None and (data := stream.read(_COPY_BYTES)):
            self._check_alive()
            self._remaining_bytes -= len(data)
            if self._remaining_bytes < 0:
                raise ImageBuildError("too much follows its last entry")

    def _place(self, member: tarfile.TarInfo) -> None:
        self._check_alive()
        path = inner_path(member.name)
        if member.isdir():
            with tree.open_directory(self._root, path):
                self._folders.append((path, member))
            return
        if not path.parts:
            raise ImageBuildError(f"an entry has no name: {member.name!r}")
        with tree.open_directory(self._root, path.parent) as parent:
            _make_way(path.name, parent)
            if member.isreg():
                self._write(member, path.name, parent)
            elif member.issym():
                os.symlink(member.linkname, path.name, dir_fd=parent)
                self._own(path.name, parent, member)
            elif member.islnk():
                self._link(member, path.name, parent)

    def _write(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        self._remaining_bytes -= member.size
        if self._remaining_bytes < 0:
            raise ImageBuildError(f"it unpacks to more than {self._limits.size_bytes} bytes")
        if disk.free_bytes(self._root) - member.size < self._limits.spare_bytes:
            raise ImageBuildError("the disk has too little free space for it")
        source = self._archive.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        with open(descriptor, "wb") as target:  # noqa: PTH123
            while source is not None and (data := source.read(_COPY_BYTES)):
                self._check_alive()
                target.write(data)
            target.flush()
            self._set_attributes(target.fileno(), member)

    def _link(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        target = inner_path(member.linkname)
        if not target.parts:
            raise ImageBuildError(f"{member.name!r} is a hard link to nothing")
        with tree.open_directory(self._root, target.parent, mode=None) as folder:
            os.link(target.name, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)

    def _set_attributes(self, descriptor: int, member: tarfile.TarInfo) -> None:
        if self._is_root:
            os.fchown(descriptor, *_owner(member))
        os.fchmod(descriptor, member.mode & 0o7777)
        seconds = max(0, int(member.mtime))
        os.utime(descriptor, (seconds, seconds))

    def _own(self, name: str, parent: int, member: tarfile.TarInfo) -> None:
        if self._is_root:
            user, group = _owner(member)
            os.chown(name, user, group, dir_fd=parent, follow_symlinks=False)

    def _check_alive(self) -> None:
        if self._cancelled.is_set():
            raise ImageBuildError("the build was cancelled")


def inner_path(name: str) -> PurePosixPath:
    """The path of an archive's entry beneath the root.

    Raises:
        ImageBuildError: it is absolute or has a part `..`.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ImageBuildError(f"the archive reaches outside its root: {name!r}")
    return path


def _owner(member: tarfile.TarInfo) -> tuple[int, int]:
    """User and group by number; the archive's names are another machine's."""
    if not (0 <= member.uid < 1 << 31 and 0 <= member.gid < 1 << 31):
        raise ImageBuildError(f"{member.name!r} has an owner out of range")
    return member.uid, member.gid


def _make_way(name: str, parent: int) -> None:
    """A later entry replaces an earlier one of the same name, unless that is a folder."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
