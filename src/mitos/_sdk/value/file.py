"""Files of a sandbox: entries, changes and differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FileDiff", "FileEvent", "FileInfo"]


@dataclass
class FileInfo:
    """An entry of a directory.

    Attributes:
        name: base name.
        is_dir: True for a directory.
        size: bytes.
        mode: `st_mode`; mask with 0o777 for the permissions.
        modified_at: seconds since 1970 as the server wrote them, usually decimal text.

    Example:
        >>> sb.files.list("/workspace")[0].size
        5
    """

    name: str
    is_dir: bool
    size: int
    mode: int = 0
    modified_at: Any = None


@dataclass
class FileEvent:
    """Something that changed in a watched folder.

    Attributes:
        kind: `CREATE`, `MODIFY`, `DELETE` or `RENAME`.
        path: what changed.
        new_path: its new name, for `RENAME` only.

    Example:
        >>> with sb.files.watch("/workspace") as changes:
        ...     sb.files.remove("/workspace/plan.txt")
        ...     next(changes).kind
        'DELETE'
    """

    kind: str
    path: str
    new_path: str = ""


@dataclass(frozen=True)
class FileDiff:
    """Absolute paths that differ between two sandboxes, sorted.

    Example:
        >>> (child,) = sb.fork()
        >>> child.files.write("/workspace/new", "")
        >>> sb.diff(child)
        FileDiff(added=['/workspace/new'], removed=[], modified=[])
    """

    added: list[str]
    removed: list[str]
    modified: list[str]
