"""What a node remembers in SQLite: its sandboxes, which ended and why, its idempotency keys.

One file, `state.db` in the home, WAL mode. Every call is one short transaction on the event loop's
thread: each takes well under a millisecond, so no thread is worth it.

    sandbox(id, template, machine, created_at)   live ones; what a crash left is swept at start
    hibernated(id, body)                         sandboxes that wait on disk; JSON
    ended(id, reason, at)                        a reaped sandbox answers "ended", not "unknown"
    lineage(uid, id, parent, ...)                who was forked from whom, the ended included
    checkpoint(id, uid, body)                    snapshots kept for a sandbox; JSON
    template(id, body)                           offered again after a restart; JSON
    idempotency(key, kind, resources, at)        which resources a key created
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EndReason", "Kin", "Ledger"]

IDEMPOTENCY_LIFETIME_S = 24 * 3600
ENDED_LIFETIME_S = 24 * 3600
ENDED_LIMIT = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sandbox (
    id TEXT PRIMARY KEY, template TEXT NOT NULL, machine TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS hibernated (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lineage (
    uid TEXT PRIMARY KEY, id TEXT NOT NULL, parent TEXT, template TEXT NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, reason TEXT);
CREATE INDEX IF NOT EXISTS lineage_parent ON lineage (parent);
CREATE TABLE IF NOT EXISTS checkpoint (id TEXT PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ended (id TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS ended_at ON ended (at);
CREATE TABLE IF NOT EXISTS template (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT NOT NULL, kind TEXT NOT NULL, resources TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (key, kind));
"""


class EndReason(str, enum.Enum):
    """Why a sandbox is no more."""

    TERMINATED = "terminated"  # its user ended it
    DEADLINE = "deadline"  # its deadline passed
    OUT_OF_MEMORY = "out_of_memory"
    EXITED = "exited"
    LOST = "lost"
    SERVER_STOPPED = "server_stopped"
    UNREADABLE = "unreadable"  # hibernated by a server whose snapshots this one cannot read


@dataclass(frozen=True, slots=True)
class Kin:
    """One life in a family of forks. Times are unix seconds.

    Attributes:
        parent: the uid it was forked from; None for the first.
        ended_at: None while it lives.
        reason: why it ended; None while it lives.
    """

    uid: str
    id: str
    parent: str | None
    template: str
    created_at: float
    ended_at: float | None
    reason: str | None


class Ledger:
    """The node's memory on disk.

    Args:
        path: the database file, made if absent.
        clock: unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def add_sandbox(self, sandbox_id: str, *, template_id: str, machine_id: str) -> None:
        """Notes a live sandbox; an earlier end or hibernation of the same id is forgotten."""
        self._db.execute("DELETE FROM ended WHERE id = ?", (sandbox_id,))
        self._db.execute("DELETE FROM hibernated WHERE id = ?", (sandbox_id,))
        self._db.execute(
            "INSERT OR REPLACE INTO sandbox VALUES (?, ?, ?, ?)",
            (sandbox_id, template_id, machine_id, self._clock()),
        )

    def end_sandbox(self, sandbox_id: str, reason: EndReason) -> None:
        """Notes that it ended; an end by its own user is no news and is not kept."""
        self._db.execute("DELETE FROM sandbox WHERE id = ?", (sandbox_id,))
        self._db.execute("DELETE FROM hibernated WHERE id = ?", (sandbox_id,))
        if reason is EndReason.TERMINATED:
            return
        now = self._clock()
        self._db.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?)", (sandbox_id, reason, now))
        self._db.execute("DELETE FROM ended WHERE at < ?", (now - ENDED_LIFETIME_S,))
        self._db.execute(
            "DELETE FROM ended WHERE id IN"
            " (SELECT id FROM ended ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (ENDED_LIMIT,),
        )

    def hibernate(self, sandbox_id: str, body: str) -> None:
        """Notes that it waits on disk, no longer in a machine: one step."""
        self._db.execute("BEGIN")
        self._db.execute("INSERT OR REPLACE INTO hibernated VALUES (?, ?)", (sandbox_id, body))
        self._db.execute("DELETE FROM sandbox WHERE id = ?", (sandbox_id,))
        self._db.execute("COMMIT")

    def hibernated(self) -> list[str]:
        """The bodies of all sandboxes that wait on disk."""
        return [row[0] for row in self._db.execute("SELECT body FROM hibernated ORDER BY rowid")]

    def add_kin(self, uid: str, sandbox_id: str, *, parent: str | None, template_id: str) -> None:
        """Notes a new life and whom it was forked from."""
        self._db.execute(
            "INSERT INTO lineage VALUES (?, ?, ?, ?, ?, NULL, NULL)",
            (uid, sandbox_id, parent, template_id, self._clock()),
        )

    def rename_kin(self, uid: str, sandbox_id: str) -> None:
        """Notes that a life goes on under another id."""
        self._db.execute("UPDATE lineage SET id = ? WHERE uid = ?", (sandbox_id, uid))

    def end_kin(self, uid: str, reason: EndReason) -> None:
        """Notes the end of a life; only so many ended ones are kept, the last."""
        self._db.execute(
            "UPDATE lineage SET ended_at = ?, reason = ? WHERE uid = ?",
            (self._clock(), reason, uid),
        )
        self._db.execute(
            "DELETE FROM lineage WHERE ended_at IS NOT NULL AND uid NOT IN"
            " (SELECT uid FROM lineage WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT ?)",
            (ENDED_LIMIT,),
        )

    def end_other_kin(self, living: Sequence[str], reason: EndReason) -> None:
        """Ends every life that is not among the living: what a predecessor left."""
        rows = self._db.execute("SELECT uid FROM lineage WHERE ended_at IS NULL").fetchall()
        for uid in {row[0] for row in rows} - set(living):
            self.end_kin(uid, reason)

    def family(self, uid: str) -> list[Kin]:
        """Everybody related to a life, itself included: its oldest known ancestor's descendants."""
        rows = self._db.execute(
            "WITH RECURSIVE up(uid, parent) AS ("
            " SELECT uid, parent FROM lineage WHERE uid = ?"
            " UNION SELECT l.uid, l.parent FROM lineage l JOIN up ON l.uid = up.parent),"
            " down(uid) AS ("
            " SELECT uid FROM up"
            " UNION SELECT l.uid FROM lineage l JOIN down ON l.parent = down.uid)"
            " SELECT uid, id, parent, template, created_at, ended_at, reason FROM lineage"
            " WHERE uid IN (SELECT uid FROM down) ORDER BY created_at, rowid",
            (uid,),
        )
        return [Kin(*row) for row in rows]

    def add_checkpoint(self, checkpoint_id: str, uid: str, body: str) -> None:
        """Notes a snapshot kept for a sandbox."""
        self._db.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", (checkpoint_id, uid, body))

    def checkpoints(self, uid: str | None = None) -> list[tuple[str, str, str]]:
        """Id, owner's uid and body of all checkpoints, or of one owner; oldest first."""
        rows = self._db.execute(
            "SELECT id, uid, body FROM checkpoint WHERE ?1 IS NULL OR uid = ?1 ORDER BY rowid",
            (uid,),
        )
        return rows.fetchall()

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Forgets a checkpoint."""
        self._db.execute("DELETE FROM checkpoint WHERE id = ?", (checkpoint_id,))

    def end_leftovers(self) -> list[str]:
        """Ends what a predecessor left as live; returns the ids."""
        ids = [row[0] for row in self._db.execute("SELECT id FROM sandbox")]
        for sandbox_id in ids:
            self.end_sandbox(sandbox_id, EndReason.SERVER_STOPPED)
        return ids

    def end_reason(self, sandbox_id: str) -> EndReason | None:
        """Why the sandbox ended, if it did not long ago."""
        row = self._db.execute("SELECT reason FROM ended WHERE id = ?", (sandbox_id,)).fetchone()
        return EndReason(row[0]) if row else None

    def save_template(self, template_id: str, body: str) -> None:
        """Notes a template; the last one of an id wins."""
        self._db.execute("INSERT OR REPLACE INTO template VALUES (?, ?)", (template_id, body))

    def delete_template(self, template_id: str) -> None:
        """Forgets a template."""
        self._db.execute("DELETE FROM template WHERE id = ?", (template_id,))

    def templates(self) -> list[str]:
        """The bodies of all templates noted."""
        return [row[0] for row in self._db.execute("SELECT body FROM template")]

    def recall(self, key: str, kind: str) -> list[str] | None:
        """The resources a key created within its lifetime."""
        row = self._db.execute(
            "SELECT resources FROM idempotency WHERE key = ? AND kind = ? AND at > ?",
            (key, kind, self._clock() - IDEMPOTENCY_LIFETIME_S),
        ).fetchone()
        return list(json.loads(row[0])) if row else None

    def remember(self, key: str, kind: str, resources: Sequence[str]) -> None:
        """Notes what a key created."""
        now = self._clock()
        self._db.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)",
            (key, kind, json.dumps(list(resources)), now),
        )
        self._db.execute("DELETE FROM idempotency WHERE at < ?", (now - IDEMPOTENCY_LIFETIME_S,))
