"""In which boot of the host the last server ran: no machine outlives a boot."""

from __future__ import annotations

from mitos.node.state.database import Database

__all__ = ["LastBoot"]


class LastBoot:
    """The boot that was noted last.

    Args:
        database: where it is noted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self) -> str | None:
        """It; None before the first."""
        rows = self._database.query("SELECT id FROM boot")
        return rows[0][0] if rows else None

    def set(self, boot: str) -> None:
        """Notes it. Never fails: what cannot be written now is written later."""
        self._database.write_or_defer(
            lambda transaction: transaction.execute(
                "INSERT OR REPLACE INTO boot (only, id) VALUES (1, ?)", (boot,)
            )
        )
