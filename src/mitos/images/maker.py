"""How one kind of image becomes the content of a folder: a maker for each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mitos.images.archive import ArchiveMaker, Limits
from mitos.images.debian import DebianMaker
from mitos.images.directory import DirectoryMaker
from mitos.images.image import ArchiveImage, DebianImage, DirectoryImage, Image

__all__ = ["Maker", "maker_of"]


class Maker(Protocol):
    """Makes one image."""

    def fingerprint(self) -> str:
        """A text that changes with what goes into the image. Blocking: run it in a thread.

        Raises:
            OSError: what the image is made of cannot be read.
        """
        ...

    async def fill(self, root: Path, progress: Callable[[str], None]) -> None:
        """Fills an empty folder; what is in it after a failure is the caller's to remove.

        Raises:
            ImageBuildError: it cannot be made.
        """
        ...


def maker_of(image: Image, limits: Limits) -> Maker:
    """The maker of an image.

    Args:
        image: of any kind.
        limits: how large an archive may be.
    """
    match image:
        case DebianImage():
            return DebianMaker(image)
        case DirectoryImage():
            return DirectoryMaker(image)
        case ArchiveImage():
            return ArchiveMaker(image, limits)
