"""The templates that are offered, in the database."""

from __future__ import annotations

from mitos.node.state import persist
from mitos.node.state.database import Database
from mitos.node.state.event import EventFeed, EventKind
from mitos.node.state.idempotency import KeyUse
from mitos.node.state.persist import TemplateRow

__all__ = ["TemplateTable"]


class TemplateTable:
    """Templates by owner and id.

    Args:
        database: where they are kept.
        events: told of every change.
    """

    def __init__(self, database: Database, events: EventFeed) -> None:
        self._database = database
        self._events = events

    def save(self, row: TemplateRow, key: KeyUse | None) -> None:
        """Notes a template, and the request that made it; the last one of an id wins.

        Raises:
            ApiError: the state cannot be written; the earlier one stays.
        """
        event = self._events.draft(EventKind.TEMPLATE, template=row)
        with self._database.transaction() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO template VALUES (?, ?, ?)", persist.template_columns(row)
            )
            self._events.write(transaction, event)
            if key is not None:
                key.write(transaction, [row.id])
        self._events.publish(event)

    def delete(self, row: TemplateRow) -> None:
        """Forgets a template.

        Raises:
            ApiError: the state cannot be written; it stays.
        """
        event = self._events.draft(EventKind.TEMPLATE_DELETED, template=row)
        with self._database.transaction() as transaction:
            transaction.execute(
                "DELETE FROM template WHERE owner = ? AND id = ?", (row.owner, row.id)
            )
            self._events.write(transaction, event)
        self._events.publish(event)

    def tell(self, row: TemplateRow, *, is_offered: bool) -> None:
        """Tells whether this server offers a template of an earlier one, unless that is known.

        Never fails: what cannot be written now is written later.
        """
        kind = EventKind.TEMPLATE if is_offered else EventKind.TEMPLATE_DELETED
        if self._events.last_of_template(row.owner, row.id) is kind:
            return
        event = self._events.draft(kind, template=row)
        self._database.write_or_defer(lambda transaction: self._events.write(transaction, event))
        self._events.publish(event)

    def all(self) -> list[TemplateRow]:
        """Every template but damaged ones.

        Raises:
            ApiError: a row is of another version.
        """
        rows = self._database.query("SELECT owner, id, body FROM template")
        return persist.readable(rows, persist.decode_template)[0]
