"""Root filesystems as EROFS images: one file that a sandbox's kernel maps, shared by all of them.

`mkfs.erofs` (package erofs-utils) writes them. The same tree always gives the same bytes: a
snapshot names its image by what the image's superblock says, and one that was removed can be made
again. EROFS is described in the kernel's Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from mitos.host import process

__all__ = ["PACKAGE", "TOOL", "is_available", "write"]

TOOL = "mkfs.erofs"
PACKAGE = "erofs-utils"
_TIMEOUT_S = 1800.0
# Files keep their times; the image's own is this one, which is later than any of theirs.
_EPOCH = 4_102_444_800  # 2100-01-01


def is_available() -> bool:
    """True when this machine has the tool."""
    return shutil.which(TOOL) is not None


async def write(root: Path, image: Path, *, key: str) -> None:
    """Writes a folder's tree into an image.

    Args:
        root: the folder; owners, modes, times, links and extended attributes are kept.
        image: the file; whatever is there is replaced.
        key: hash of the content, which becomes the image's UUID.

    Raises:
        CommandError: the tool is missing or failed, say because the disk is full.
    """
    # Engines map files straight from the image: their data must be in whole blocks of their own.
    options = ("--quiet", "-E", "noinline_data", "-U", str(uuid.UUID(key)))
    await process.run(
        [TOOL, *options, image, root],
        timeout_s=_TIMEOUT_S,
        environment={**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH)},
    )
