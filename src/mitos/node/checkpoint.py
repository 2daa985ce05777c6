"""Checkpoints: snapshots a user keeps of a sandbox, to put it back there later.

    <home>/checkpoints/<id>/snapshot/

They belong to one sandbox and end with it. Their number per sandbox and their size all together are
bounded. What a crash left without a row in the ledger is removed at the next start.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mitos.engine.base import Snapshot
from mitos.node.ledger import Ledger
from mitos.node.settings import NodeSettings
from mitos.node.sleep import decode_spec, encode_spec
from mitos.wire.errors import ApiError

__all__ = ["CheckpointRecord", "Shelf"]


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """What the outside may know about a checkpoint.

    Attributes:
        name: the user's label; may be empty, and need not be unique.
        size_bytes: what it takes on disk.
    """

    id: str
    name: str
    created_at: datetime
    size_bytes: int


class Shelf:
    """All checkpoints of a node.

    Args:
        settings: home and bounds.
        ledger: remembers them.
    """

    def __init__(self, settings: NodeSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._directory = settings.home / "checkpoints"

    def sweep(self, living: Collection[str]) -> None:
        """Removes what belongs to nobody alive; makes the folder if it is absent."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = self._ledger.checkpoints()
        for checkpoint_id, uid, _ in rows:
            if uid not in living:
                self._ledger.delete_checkpoint(checkpoint_id)
        kept = {checkpoint_id for checkpoint_id, uid, _ in rows if uid in living}
        for folder in self._directory.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def new_place(self, uid: str) -> tuple[str, Path]:
        """An id for a new checkpoint and where its snapshot goes.

        Raises:
            ApiError: `quota_exceeded`, the sandbox or the server has as many as it may.
        """
        limit = self._settings.max_checkpoints
        if len(self._ledger.checkpoints(uid)) >= limit:
            raise _full("checkpoints", limit, f"a sandbox keeps at most {limit} checkpoints")
        checkpoint_id = f"cp-{secrets.token_hex(6)}"
        return checkpoint_id, self._directory / checkpoint_id / "snapshot"

    def add(
        self, checkpoint_id: str, uid: str, name: str, snapshot: Snapshot, snapshot_format: str
    ) -> CheckpointRecord:
        """Keeps a snapshot that was written to the place of `new_place`.

        Raises:
            ApiError: `quota_exceeded`, it is too large; the snapshot is removed.
        """
        size = sum(file.stat().st_blocks * 512 for file in snapshot.directory.iterdir())
        used = sum(json.loads(body)["size_bytes"] for _, _, body in self._ledger.checkpoints())
        limit = self._settings.max_checkpoint_bytes
        if 0 < limit < used + size:
            self.discard(checkpoint_id)
            raise _full(
                "checkpoint_bytes", limit, f"checkpoints take at most {limit >> 20} MiB together"
            )
        record = CheckpointRecord(checkpoint_id, name, datetime.now(timezone.utc), size)
        body = {
            "name": name,
            "created_at": record.created_at.isoformat(),
            "size_bytes": size,
            "spec": encode_spec(snapshot.spec),
            "format": snapshot_format,
        }
        self._ledger.add_checkpoint(checkpoint_id, uid, json.dumps(body))
        return record

    def list(self, uid: str) -> list[CheckpointRecord]:
        """The checkpoints of a sandbox, oldest first."""
        return [_record(row_id, body) for row_id, _, body in self._ledger.checkpoints(uid)]

    def find(self, uid: str, checkpoint_id: str, snapshot_format: str) -> Snapshot:
        """The snapshot of a sandbox's checkpoint.

        Raises:
            ApiError: `not_found`; or `internal` for one that this server cannot read.
        """
        for row_id, _, body in self._ledger.checkpoints(uid):
            if row_id == checkpoint_id:
                kept = json.loads(body)
                directory = self._directory / checkpoint_id / "snapshot"
                if kept["format"] != snapshot_format or not directory.is_dir():
                    raise ApiError(
                        "internal",
                        f"checkpoint {checkpoint_id} cannot be read by this server",
                        remediation="Delete it; an update of the engine made it unreadable.",
                    )
                return Snapshot(directory, decode_spec(kept["spec"]))
        raise _unknown(checkpoint_id)

    def delete(self, uid: str, checkpoint_id: str) -> None:
        """Removes one checkpoint.

        Raises:
            ApiError: `not_found`.
        """
        if checkpoint_id not in (row_id for row_id, _, _ in self._ledger.checkpoints(uid)):
            raise _unknown(checkpoint_id)
        self._ledger.delete_checkpoint(checkpoint_id)
        self.discard(checkpoint_id)

    def delete_all(self, uid: str) -> None:
        """Removes all checkpoints of a sandbox that ended."""
        for checkpoint_id, _, _ in self._ledger.checkpoints(uid):
            self.delete(uid, checkpoint_id)

    def discard(self, checkpoint_id: str) -> None:
        """Removes the folder of a checkpoint that did not come to be."""
        shutil.rmtree(self._directory / checkpoint_id, ignore_errors=True)


def digest(snapshot: Snapshot) -> str:
    """SHA-256 over the names and contents of a snapshot's files, in hex. Takes a while."""
    total = hashlib.sha256()
    for file in sorted(snapshot.directory.iterdir()):
        with file.open("rb") as content:
            part = hashlib.file_digest(content, "sha256").digest()
        total.update(file.name.encode() + b"\0" + part)
    return total.hexdigest()


def _record(checkpoint_id: str, body: str) -> CheckpointRecord:
    kept = json.loads(body)
    created_at = datetime.fromisoformat(kept["created_at"])
    return CheckpointRecord(checkpoint_id, kept["name"], created_at, kept["size_bytes"])


def _unknown(checkpoint_id: str) -> ApiError:
    return ApiError(
        "not_found",
        f"no checkpoint {checkpoint_id!r} of this sandbox",
        remediation="List what there is with sb.checkpoints().",
    )


def _full(dimension: str, limit: int, message: str) -> ApiError:
    return ApiError(
        "quota_exceeded",
        message,
        remediation="Delete checkpoints that are no longer needed, then try again.",
        context={"dimension": dimension, "limit": limit},
    )
