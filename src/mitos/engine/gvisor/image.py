"""The files of a gVisor snapshot, and the manifest that says what they are.

    <directory>/checkpoint.img   the kernel's objects
                pages_meta.img   where memory goes
                pages.img        memory, the root file system's changes included
                manifest.json    {"format", "files": {name: bytes}}, written last

A directory without a manifest is not a snapshot: the checkpoint did not finish.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FILES", "ImageError", "Size", "create_files", "open_files", "read_size", "seal"]

# In the order in which the runtime expects their descriptors.
FILES = ("checkpoint.img", "pages_meta.img", "pages.img")
_MANIFEST = "manifest.json"
_MANIFEST_LIMIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Size:
    """How large a snapshot is.

    Attributes:
        objects_bytes: of the kernel's objects.
        pages_bytes: of the guest's memory.
    """

    objects_bytes: int
    pages_bytes: int


class ImageError(Exception):
    """A directory is not a complete snapshot that this engine can read."""


@contextlib.contextmanager
def create_files(directory: Path) -> Iterator[tuple[int, ...]]:
    """Makes the three files and opens them for the time of the block.

    Raises:
        OSError: they exist already or cannot be made.
    """
    with _opened(directory, os.O_CREAT | os.O_EXCL | os.O_RDWR) as descriptors:
        yield descriptors


@contextlib.contextmanager
def open_files(directory: Path) -> Iterator[tuple[int, ...]]:
    """Opens the three files for reading for the time of the block.

    Raises:
        OSError: one is missing.
    """
    with _opened(directory, os.O_RDONLY) as descriptors:
        yield descriptors


def seal(directory: Path, *, snapshot_format: str) -> None:
    """Writes the manifest of a finished checkpoint.

    Raises:
        OSError: no space.
    """
    sizes = {name: (directory / name).stat().st_size for name in FILES}
    content = json.dumps({"format": snapshot_format, "files": sizes})
    (directory / _MANIFEST).write_text(content)


def read_size(directory: Path, *, snapshot_format: str) -> Size:
    """Checks a snapshot against its manifest and returns its size.

    Raises:
        ImageError: it is incomplete, truncated, or of another format.
    """
    try:
        with (directory / _MANIFEST).open("rb") as file:
            manifest = json.loads(file.read(_MANIFEST_LIMIT_BYTES))
        found, expected = manifest["format"], manifest["files"]
        sizes = {name: (directory / name).stat().st_size for name in FILES}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ImageError(f"{directory} is not a finished snapshot: {exc}") from exc
    if found != snapshot_format:
        raise ImageError(f"{directory} was written by {found}, this engine is {snapshot_format}")
    if sizes != expected:
        raise ImageError(f"{directory} is damaged: its files have other sizes than were written")
    objects, _, pages = FILES
    return Size(objects_bytes=sizes[objects], pages_bytes=sizes[pages])


@contextlib.contextmanager
def _opened(directory: Path, flags: int) -> Iterator[tuple[int, ...]]:
    with contextlib.ExitStack() as stack:
        descriptors = []
        for name in FILES:
            descriptor = os.open(directory / name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        yield tuple(descriptors)
