"""A guest's state as a file: all that a restored machine goes on with.

    magic 8 bytes | length u64 | BLAKE2b-256 of the body | body, a pickle of `SavedGuest`

The file is the engine's own, in a folder of its caller: the checksum notices damage, not malice. It
is read by the process that wrote it, or one with the same `FORMAT`.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.process import Process

__all__ = ["FORMAT", "DamagedSnapshotError", "SavedGuest", "dump", "read", "write"]

FILE_NAME = "guest"

FORMAT = f"fake-1-{sys.implementation.cache_tag}"
"""What can read a snapshot: code of cells is kept as this Python's own bytes."""

_HEADER = struct.Struct("!8sQ32s")
_MAGIC = b"mitfake1"


class DamagedSnapshotError(Exception):
    """The file is not what `write` left there."""


@dataclass(frozen=True, slots=True)
class SavedGuest:
    """What a snapshot has of a guest.

    Attributes:
        files: its file system.
        environment: the variables of all its commands.
        namespace: the variables of its cells, from `namespace.dump`.
        processes: the jobs that ran.
    """

    files: FileSystem
    environment: dict[str, str]
    namespace: bytes
    processes: list[Process]


def dump(saved: SavedGuest) -> bytes:
    """The state as bytes."""
    return pickle.dumps(saved, protocol=5)


def write(directory: Path, body: bytes) -> None:
    """Writes a dumped state into the folder.

    Raises:
        OSError: it could not be written.
    """
    header = _HEADER.pack(_MAGIC, len(body), _digest(body))
    partial = directory / f"{FILE_NAME}.part"
    partial.write_bytes(header + body)
    partial.replace(directory / FILE_NAME)


def read(directory: Path) -> SavedGuest:
    """Reads the state in the folder: a copy of its own at each call.

    Raises:
        OSError: there is none.
        DamagedSnapshotError: it was changed.
    """
    content = (directory / FILE_NAME).read_bytes()
    if len(content) < _HEADER.size:
        raise DamagedSnapshotError("the snapshot is cut short")
    magic, length, digest = _HEADER.unpack_from(content)
    body = content[_HEADER.size :]
    if magic != _MAGIC or length != len(body) or digest != _digest(body):
        raise DamagedSnapshotError("the snapshot is damaged")
    try:
        saved = pickle.loads(body)  # noqa: S301  this engine wrote it, see above
    except Exception as exc:  # pickle raises whatever another version's classes make it raise
        raise DamagedSnapshotError(f"the snapshot cannot be read: {exc}") from exc
    if not isinstance(saved, SavedGuest):
        raise DamagedSnapshotError("the snapshot holds something else")
    return saved


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).digest()
