"""Which machines are kept ready, so that the next server need not make them anew.

Who takes one does not write that down: one that runs, or that a sandbox has, was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mitos.node.state.database import Database

__all__ = ["WarmTable"]


class WarmTable:
    """The stock of warm machines.

    Args:
        database: where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, Path]:
        """The folders of their snapshots, by machine."""
        rows = self._database.query("SELECT machine, snapshot FROM warm")
        return {machine: Path(snapshot) for machine, snapshot in rows}

    def save(self, stock: Mapping[str, Path]) -> None:
        """Replaces it.

        Raises:
            ApiError: the state cannot be written.
        """
        rows = [(machine, str(snapshot)) for machine, snapshot in stock.items()]
        with self._database.transaction() as transaction:
            transaction.execute("DELETE FROM warm")
            transaction.executemany("INSERT INTO warm VALUES (?, ?)", rows)
