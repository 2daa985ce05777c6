"""Root filesystems copied from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mitos.host import process
from mitos.images import tree
from mitos.images.image import DirectoryImage, ImageBuildError

__all__ = ["DirectoryMaker"]

_COPY_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class DirectoryMaker:
    """Copies a folder: a change to it must not reach sandboxes that run."""

    image: DirectoryImage

    def fingerprint(self) -> str:
        """The state of the folder."""
        return f"directory\n{tree.fingerprint(self.image.path)}"

    async def fill(self, root: Path, progress: Callable[[str], None]) -> None:
        """Copies the folder's content.

        Raises:
            ImageBuildError: it could not be copied.
        """
        source = self.image.path
        progress(f"copying {source}")
        argv = ["cp", "--archive", "--one-file-system", "--reflink=auto", "--no-target-directory"]
        try:
            await process.run([*argv, "--", source, root], timeout_s=_COPY_TIMEOUT_S)
        except process.CommandError as exc:
            raise ImageBuildError(f"{source} could not be copied: {exc}") from exc
