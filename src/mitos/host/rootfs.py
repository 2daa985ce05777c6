"""A root filesystem on this machine's disk: what images are made into and engines boot.

The value lives here, below both, because `images` and `engine` do not know each other: `node` takes
it from the one and hands it to the other.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RootFilesystem", "RootKind"]


class RootKind(enum.Enum):
    """How a root filesystem lies on disk. The values are written into saved state."""

    FOLDER = "folder"  # a folder that holds the tree
    EROFS_IMAGE = "erofs"  # a file that holds one EROFS filesystem, uncompressed


@dataclass(frozen=True, slots=True)
class RootFilesystem:
    """A root filesystem. Shared by every machine that boots it; nobody writes to it.

    Attributes:
        kind: how it lies on disk.
        path: the folder or the file.
    """

    kind: RootKind
    path: Path

    def exists(self) -> bool:
        """True when there is a folder, or a file, as the kind says."""
        match self.kind:
            case RootKind.FOLDER:
                return self.path.is_dir()
            case RootKind.EROFS_IMAGE:
                return self.path.is_file()
