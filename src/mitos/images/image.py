"""What an image is made of. Values only; `catalog` names them and `store` builds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ArchiveImage", "DebianImage", "DirectoryImage", "Image", "ImageBuildError"]


@dataclass(frozen=True, slots=True)
class DebianImage:
    """A root filesystem installed from Debian packages.

    Attributes:
        name: what people call it.
        packages: installed beside Debian's required packages and apt.
        preload: Python modules that its sandboxes have imported when they start.
        suite: the Debian release.
    """

    name: str
    packages: tuple[str, ...]
    preload: tuple[str, ...] = ()
    suite: str = "bookworm"


@dataclass(frozen=True, slots=True)
class DirectoryImage:
    """A copy of a folder that holds a root filesystem; `preload` as in `DebianImage`."""

    name: str
    path: Path
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """A root filesystem unpacked from a tar archive, compressed or not; `preload` likewise."""

    name: str
    path: Path
    preload: tuple[str, ...] = ()


Image = DebianImage | DirectoryImage | ArchiveImage


class ImageBuildError(Exception):
    """An image could not be made into a root filesystem; nothing of the attempt is left."""
