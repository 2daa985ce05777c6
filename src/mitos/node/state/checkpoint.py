"""Checkpoints: snapshots a user keeps of a sandbox, to put it back there later.

    <home>/checkpoints/<id>/snapshot/

They belong to one sandbox and end with it. What a crash left without a row in the
database is removed at the next start.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mitos.engine.base import Snapshot
from mitos.host import private
from mitos.node.quota import Quota
from mitos.node.refusal import storage_errors
from mitos.node.state import persist
from mitos.node.state.database import Database
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import CheckpointRow
from mitos.wire.errors import ApiError

__all__ = ["CheckpointRecord", "Checkpoints", "digest"]


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


class Checkpoints:
    """All checkpoints of a node.

    Args:
        directory: where their snapshots lie; made if absent.
        database: remembers them.
    """

    def __init__(self, directory: Path, database: Database) -> None:
        self._directory = directory
        self._database = database

    def sweep(self, living: Collection[str]) -> None:
        """Removes what belongs to no living sandbox, or cannot be read.

        Args:
            living: the uids of those that live.

        Raises:
            ApiError: the state cannot be written.
        """
        private.make_folder(self._directory)
        kept = {row.id for row in self._rows() if row.uid in living}
        known = self._database.query("SELECT id FROM checkpoint")
        gone = [row for row in known if row[0] not in kept]
        if gone:
            self._database.write_or_defer(
                lambda transaction: transaction.executemany(
                    "DELETE FROM checkpoint WHERE id = ?", gone
                )
            )
        for folder in self._directory.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def new_place(self, uid: str, quota: Quota) -> tuple[str, Path]:
        """An id for a new checkpoint, and where its snapshot goes.

        Raises:
            ApiError: `quota_exceeded`, the sandbox has as many as it may.
        """
        quota.check_checkpoints(len(self._rows(uid)) + 1)
        checkpoint_id = f"cp-{secrets.token_hex(6)}"
        return checkpoint_id, self._place(checkpoint_id)

    def add(
        self,
        checkpoint_id: str,
        uid: str,
        name: str,
        snapshot: Snapshot,
        *,
        snapshot_format: str,
        quota: Quota,
        owned: Collection[str],
        key: KeyUse | None = None,
    ) -> CheckpointRecord:
        """Keeps a snapshot that was written to the place of `new_place`.

        Args:
            checkpoint_id: as `new_place` gave it.
            uid: the sandbox it belongs to.
            name: the user's label.
            snapshot: what is kept.
            snapshot_format: names what can read it.
            quota: of the owner.
            owned: the uids of all of the owner's sandboxes, which share the quota.
            key: the request's idempotency key.

        Raises:
            ApiError: `quota_exceeded`, it is too large; or the state cannot be written. The
                snapshot is the caller's to discard.
        """
        with storage_errors("the checkpoint's size could not be read"):
            size = sum(file.stat().st_blocks * 512 for file in snapshot.directory.iterdir())
        used = sum(row.size_bytes for row in self._rows() if row.uid in owned)
        quota.check_checkpoint_bytes(used + size)
        created_at = datetime.now(timezone.utc)
        row = CheckpointRow(
            checkpoint_id, uid, name, created_at, size, snapshot.spec, snapshot_format
        )
        with self._database.transaction() as transaction:
            transaction.execute(
                "INSERT INTO checkpoint VALUES (?, ?, ?)", persist.checkpoint_columns(row)
            )
            if key is not None:
                key.write(transaction, [row.id])
        return _record(row)

    def records(self, uid: str) -> list[CheckpointRecord]:
        """The checkpoints of a sandbox, oldest first."""
        return [_record(row) for row in self._rows(uid)]

    def find(self, uid: str, checkpoint_id: str, snapshot_format: str) -> Snapshot:
        """The snapshot of a sandbox's checkpoint.

        Raises:
            ApiError: `not_found`; or `internal` for one that this server cannot read.
        """
        row = self._find(uid, checkpoint_id)
        directory = self._place(checkpoint_id)
        if row.snapshot_format != snapshot_format or not directory.is_dir():
            raise ApiError(
                "internal",
                f"checkpoint {checkpoint_id} cannot be read by this server",
                remediation="Delete it; an update of the engine made it unreadable.",
            )
        return Snapshot(directory, row.spec)

    def delete(self, uid: str, checkpoint_id: str) -> None:
        """Removes one checkpoint.

        Raises:
            ApiError: `not_found`; or the state cannot be written, and it stays.
        """
        self._find(uid, checkpoint_id)
        with self._database.transaction() as transaction:
            transaction.execute("DELETE FROM checkpoint WHERE id = ?", (checkpoint_id,))
        self.discard(checkpoint_id)

    def ids(self, uid: str) -> list[str]:
        """The ids of a sandbox's checkpoints."""
        return [row.id for row in self._rows(uid)]

    def discard(self, checkpoint_id: str) -> None:
        """Removes the files of a checkpoint that did not come to be, or is no more."""
        shutil.rmtree(self._directory / checkpoint_id, ignore_errors=True)

    def _place(self, checkpoint_id: str) -> Path:
        return self._directory / checkpoint_id / "snapshot"

    def _rows(self, uid: str | None = None) -> list[CheckpointRow]:
        rows = self._database.query(
            "SELECT id, uid, body FROM checkpoint WHERE ?1 IS NULL OR uid = ?1 ORDER BY rowid", uid
        )
        return persist.readable(rows, persist.decode_checkpoint)[0]

    def _find(self, uid: str, checkpoint_id: str) -> CheckpointRow:
        for row in self._rows(uid):
            if row.id == checkpoint_id:
                return row
        raise ApiError(
            "not_found",
            f"no checkpoint {checkpoint_id!r} of this sandbox",
            remediation="List what there is with sb.checkpoints().",
        )


def digest(snapshot: Snapshot) -> str:
    """SHA-256 over the names and contents of a snapshot's files, in hex. Takes a while.

    Raises:
        ApiError: a file cannot be read.
    """
    total = hashlib.sha256()
    with storage_errors("the checkpoint cannot be read"):
        for file in sorted(snapshot.directory.iterdir()):
            with file.open("rb") as content:
                part = hashlib.file_digest(content, "sha256").digest()
            total.update(file.name.encode() + b"\0" + part)
    return total.hexdigest()


def _record(row: CheckpointRow) -> CheckpointRecord:
    return CheckpointRecord(row.id, row.name, row.created_at, row.size_bytes)
