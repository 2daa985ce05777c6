"""What a base filesystem is made of. Values only; `store` builds them.

`node/template/catalog.py` gives them names. Each kind has a maker (`maker.py`) in its own file.
"""

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
        suite: the Debian release.
    """

    name: str
    packages: tuple[str, ...]
    suite: str = "bookworm"

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return f"Debian {self.suite}: {' '.join(self.packages)}"


@dataclass(frozen=True, slots=True)
class DirectoryImage:
    """A copy of a folder that holds a root filesystem."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """A root filesystem unpacked from a tar archive, compressed or not."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return str(self.path)


Image = DebianImage | DirectoryImage | ArchiveImage


class ImageBuildError(Exception):
    """An image could not be made into a root filesystem; nothing of the attempt is left."""
