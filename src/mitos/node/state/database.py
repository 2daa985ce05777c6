"""The node's database: one SQLite file in WAL mode, with transactions and typed failures.

Every call is one short transaction on the event loop's thread: each takes well under a millisecond,
so no thread is worth it, and nobody sees half of one.

Full disk: a transaction fails with `quota_exceeded` and has not happened. What must happen anyway,
such as the end of a sandbox, is *deferred*: it is written in front of the next transaction that
works. On a crash what is deferred is lost: the next server then finds the sandbox as one without a
machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mitos.host import disk, private
from mitos.node.refusal import no_space, storage_errors, storage_failed
from mitos.node.state import migration
from mitos.wire.errors import ApiError

__all__ = ["Database", "Transaction"]

_log = logging.getLogger(__name__)

_LOCK_WAIT_S = 0.1
"""How long the event loop waits for another program that writes to the file. Ours has it alone; an
administrator's shell may not.
"""

Transaction = sqlite3.Connection
"""What a transaction's statements are executed on."""


class Database:
    """An open database of the current schema.

    Args:
        path: the file, made if absent and brought up to the current schema.

    Raises:
        ApiError: it cannot be opened, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        self._deferred: list[Callable[[Transaction], object]] = []
        self._path = path
        with _typed(f"{path} could not be opened", path):
            _make_private(path)
            self._connection = sqlite3.connect(path, _LOCK_WAIT_S, isolation_level=None)
            try:
                self._connection.executescript(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                    "PRAGMA temp_store = MEMORY;"
                )
                migration.migrate(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Writes what is deferred, if that is possible now, and closes the file. Idempotent."""
        if self._deferred:
            with contextlib.suppress(ApiError), self.transaction():
                pass
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All statements of the block happen, or none does. Not nested; the block must not wait.

        Raises:
            ApiError: `quota_exceeded` on a full disk, `internal` (503) for other failures.
        """
        with _typed("the server's state could not be written", self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for work in self._deferred:
                    work(self._connection)
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._deferred.clear()

    def write_or_defer(self, work: Callable[[Transaction], object]) -> None:
        """Writes now, or in front of the next transaction that works."""
        try:
            with self.transaction() as transaction:
                work(transaction)
        except ApiError as exc:
            _log.error("%s; it is written later: %s", exc.message, exc.cause)
            self._deferred.append(work)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a SELECT.

        Raises:
            ApiError: `internal` (503), the file cannot be read.
        """
        with _typed("the server's state could not be read", self._path):
            return self._connection.execute(statement, parameters).fetchall()


def _make_private(path: Path) -> None:
    """The database holds environments of sandboxes. SQLite gives the files beside it its mode."""
    private.make_file(path)
    for beside in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            private.tighten(path.with_name(path.name + beside))


@contextlib.contextmanager
def _typed(what: str, path: Path) -> Iterator[None]:
    """Turns SQLite's errors, and the disk's below it, into those of the catalogue."""
    try:
        with storage_errors(what):
            yield
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise no_space(what, str(exc)) from exc
        # SQLite has one error for all that fails beside the file itself.
        reason = disk.fault(path.parent)
        fault = OSError(str(exc)) if reason is None else OSError(reason, os.strerror(reason))
        raise storage_failed(fault, what) from exc
