"""Idempotency keys: the same key of one owner creates once, however often it is sent.

While the first request of a key runs, later ones wait for it and get its result; if it fails, the
key is free again and one of them goes on. What a key created is remembered for a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from mitos.node.clock import Clock
from mitos.node.state.database import Database, Transaction
from mitos.wire.errors import conflict

__all__ = ["IdempotencyKeys", "KeyUse"]

LIFETIME_S = 24 * 3600

WAIT_DEADLINE_S = {"fork": 120.0, "checkpoint": 120.0, "promote": 120.0, "template": 3600.0}
"""How long a request waits for another of its key; building a template may take minutes."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One request's hold on its key.

    Attributes:
        created: what an earlier request of this key created, or None: then create, and `write`.
    """

    owner: str
    key: str
    kind: str
    now: float
    created: list[str] | None

    def write(self, transaction: Transaction, resources: Sequence[str]) -> None:
        """Notes what this request creates, in the transaction that notes the resources."""
        row = (self.owner, self.key, self.kind, json.dumps(list(resources)), self.now)
        transaction.execute("INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)", row)
        transaction.execute("DELETE FROM idempotency WHERE at < ?", (self.now - LIFETIME_S,))


class IdempotencyKeys:
    """Keys in use, and what keys created.

    Args:
        database: remembers what keys created.
        clock: says when that was long ago.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._locks: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def use(self, owner: str, key: str | None, kind: str) -> AsyncIterator[KeyUse | None]:
        """Holds the key; yields None for a request without one.

        Args:
            owner: whose key it is; others may use the same text.
            key: as the client sent it.
            kind: `fork`, `checkpoint`, `promote` or `template`: each has its own keys.

        Raises:
            ApiError: another request of the key did not end in time.
        """
        if key is None:
            yield None
            return
        lock = self._locks.setdefault((owner, key, kind), asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_DEADLINE_S[kind]):
                await lock.acquire()
        except TimeoutError:
            raise conflict(
                "another request with this idempotency key is still running",
                "Wait for it to end, or use a new key.",
            ) from None
        try:
            yield self._recall(owner, key, kind)
        finally:
            lock.release()

    def _recall(self, owner: str, key: str, kind: str) -> KeyUse:
        now = self._clock.now()
        rows = self._database.query(
            "SELECT resources FROM idempotency WHERE owner = ? AND key = ? AND kind = ? AND at > ?",
            *(owner, key, kind, now - LIFETIME_S),
        )
        try:
            created = list(json.loads(rows[0][0])) if rows else None
        except (ValueError, TypeError):
            created = None  # damaged: as a key that nobody used
        return KeyUse(owner, key, kind, now, created)
