"""Sandboxes in the database: the living, the last ended ones, and who was forked from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mitos.node.clock import Clock
from mitos.node.end import EndReason
from mitos.node.phase import Phase
from mitos.node.state import persist
from mitos.node.state.database import Database, Transaction
from mitos.node.state.event import Event, EventFeed, EventKind
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import Relative, SandboxRow

__all__ = ["SandboxTable"]

ENDED_LIFETIME_S = 24 * 3600
"""How long an id answers why its sandbox ended."""

ENDED_LIMIT = 10_000
"""How many of the last ended ones are kept; fork trees have them."""

_INSERT = (
    "INSERT INTO sandbox"
    " (uid, owner, id, template, parent, phase, deadline, budget, body, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE sandbox SET owner = ?, id = ?, template = ?, parent = ?, phase = ?, deadline = ?,"
    " budget = ?, body = ? WHERE uid = ?"
)


class SandboxTable:
    """Every sandbox of a node, living or ended.

    Args:
        database: where they are kept.
        events: told of every change.
        clock: dates ends.
    """

    def __init__(self, database: Database, events: EventFeed, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    def begin(self, rows: Sequence[SandboxRow], key: KeyUse | None = None) -> None:
        """Notes new sandboxes, and the request that made them, in one step.

        Args:
            rows: all that one request made.
            key: the request's idempotency key, if it has one.

        Raises:
            ApiError: the state cannot be written; none is noted.
        """
        drafts = [self._events.draft(EventKind.CREATED, sandbox=row) for row in rows]
        with self._database.transaction() as transaction:
            for row, event in zip(rows, drafts, strict=True):
                transaction.execute(
                    _INSERT,
                    (*persist.sandbox_columns(row), row.created_at.timestamp()),
                )
                self._events.write(transaction, event)
            if key is not None:
                key.write(transaction, [row.id for row in rows])
        self._publish(drafts)

    def change(self, row: SandboxRow, kind: EventKind) -> None:
        """Notes what a living sandbox is like from now on.

        Raises:
            ApiError: the state cannot be written; the row is as it was.
        """
        event = self._events.draft(kind, sandbox=row)
        with self._database.transaction() as transaction:
            _update(transaction, row)
            self._events.write(transaction, event)
        self._events.publish(event)

    def correct(self, row: SandboxRow) -> None:
        """Notes what an adopted sandbox turned out to be.

        Never fails: what cannot be written now is written later.
        """
        event = self._events.draft(EventKind.PHASE, sandbox=row)

        def write(transaction: Transaction) -> None:
            _update(transaction, row)
            self._events.write(transaction, event)

        self._database.write_or_defer(write)
        self._events.publish(event)

    def rename(
        self, row: SandboxRow, *, replaced: SandboxRow | None, key: KeyUse | None = None
    ) -> None:
        """Notes that a sandbox goes on under another id, and the end of the one that had it.

        Raises:
            ApiError: the state cannot be written; both are as they were.
        """
        drafts = []
        if replaced is not None:
            reason = EndReason.TERMINATED
            drafts.append(self._events.draft(EventKind.ENDED, sandbox=replaced, reason=reason))
        drafts.append(self._events.draft(EventKind.RENAMED, sandbox=row))
        with self._database.transaction() as transaction:
            if replaced is not None:
                self._end(transaction, drafts[0])
            _update(transaction, row)
            for event in drafts:
                self._events.write(transaction, event)
            if key is not None:
                key.write(transaction, [row.id])
        self._publish(drafts)

    def end(self, row: SandboxRow, reason: EndReason) -> None:
        """Notes the end of a sandbox, and forgets its checkpoints.

        Never fails: what cannot be written now is written later.
        """
        event = self._events.draft(EventKind.ENDED, sandbox=row, reason=reason)

        def write(transaction: Transaction) -> None:
            self._end(transaction, event)
            self._events.write(transaction, event)

        self._database.write_or_defer(write)
        self._events.publish(event)

    def living(self) -> list[SandboxRow]:
        """Every sandbox that has no end, oldest first. Damaged ones end here.

        Raises:
            ApiError: a row is of another version.
        """
        rows = self._database.query(
            "SELECT uid, owner, id, template, parent, phase, deadline, budget, body FROM sandbox"
            " WHERE ended_at IS NULL ORDER BY created_at, rowid"
        )
        found, damaged = persist.readable(rows, persist.decode_sandbox)
        if damaged:
            ends = [(self._clock.now(), EndReason.UNREADABLE.value, uid) for uid, *_ in damaged]
            self._database.write_or_defer(
                lambda transaction: transaction.executemany(
                    "UPDATE sandbox SET ended_at = ?, reason = ? WHERE uid = ?", ends
                )
            )
        return found

    def end_reason(self, owner: str, sandbox_id: str) -> tuple[EndReason, int] | None:
        """Why the last sandbox of an id ended, and its memory limit in MiB; None if long ago."""
        rows = self._database.query(
            "SELECT reason, ended_at, json_extract(body, '$.spec.resources.memory_mib')"
            " FROM sandbox WHERE owner = ? AND id = ?"
            " ORDER BY ended_at IS NOT NULL, ended_at DESC LIMIT 1",
            *(owner, sandbox_id),
        )
        for reason, ended_at, memory_mib in rows:
            if ended_at is not None and ended_at > self._clock.now() - ENDED_LIFETIME_S:
                return EndReason(reason), memory_mib or 0
        return None

    def family(self, uid: str) -> list[Relative]:
        """A sandbox's relatives and itself: the descendants of its oldest known ancestor."""
        rows = self._database.query(
            "WITH RECURSIVE up(uid, parent) AS ("
            " SELECT uid, parent FROM sandbox WHERE uid = ?"
            " UNION SELECT l.uid, l.parent FROM sandbox l JOIN up ON l.uid = up.parent),"
            " down(uid) AS ("
            " SELECT uid FROM up"
            " UNION SELECT l.uid FROM sandbox l JOIN down ON l.parent = down.uid)"
            " SELECT uid, id, parent, template, created_at, ended_at, reason FROM sandbox"
            " WHERE uid IN (SELECT uid FROM down) ORDER BY created_at, rowid",
            uid,
        )
        return [
            Relative(uid, name, parent, template, created_at, ended_at, _reason(reason))
            for uid, name, parent, template, created_at, ended_at, reason in rows
        ]

    def last_uses(self) -> dict[str, float]:
        """When the living sandboxes were used last, by uid, as far as it was noted."""
        rows = self._database.query(
            "SELECT uid, used_at FROM sandbox WHERE ended_at IS NULL AND used_at IS NOT NULL"
        )
        return dict(rows)

    def save_uses(self, uses: Mapping[str, float]) -> None:
        """Notes when sandboxes were used last, by uid.

        Raises:
            ApiError: the state cannot be written.
        """
        with self._database.transaction() as transaction:
            transaction.executemany(
                "UPDATE sandbox SET used_at = ? WHERE uid = ?",
                [(used_at, uid) for uid, used_at in uses.items()],
            )

    def forks_used(self, budget_id: str) -> int:
        """How many forks from inside the family of a budget has made."""
        rows = self._database.query("SELECT forks_used FROM budget WHERE id = ?", budget_id)
        return int(rows[0][0]) if rows else 0

    def save_forks_used(self, budget_id: str, used: int) -> None:
        """Notes how many it has made.

        Raises:
            ApiError: the state cannot be written.
        """
        with self._database.transaction() as transaction:
            transaction.execute("INSERT OR REPLACE INTO budget VALUES (?, ?)", (budget_id, used))

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.publish(event)

    def _end(self, transaction: Transaction, event: Event) -> None:
        row = event.sandbox
        assert row is not None
        assert event.reason is not None
        transaction.execute(
            "UPDATE sandbox SET phase = ?, ended_at = ?, reason = ? WHERE uid = ?",
            (Phase.TERMINATING.value, event.at, event.reason.value, row.uid),
        )
        transaction.execute("DELETE FROM checkpoint WHERE uid = ?", (row.uid,))
        transaction.execute(
            "DELETE FROM sandbox WHERE uid IN (SELECT uid FROM sandbox WHERE ended_at IS NOT NULL"
            " ORDER BY ended_at DESC LIMIT -1 OFFSET ?)",
            (ENDED_LIMIT,),
        )
        transaction.execute(
            "DELETE FROM budget WHERE id = ?1 AND NOT EXISTS"
            " (SELECT 1 FROM sandbox WHERE budget = ?1 AND ended_at IS NULL)",
            (row.budget_id,),
        )


def _update(transaction: Transaction, row: SandboxRow) -> None:
    uid, *columns = persist.sandbox_columns(row)
    transaction.execute(_UPDATE, (*columns, uid))


def _reason(text: str | None) -> EndReason | None:
    return EndReason(text) if text else None
