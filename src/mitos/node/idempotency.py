"""Idempotency keys: the same key creates once, whoever asks and however often.

While the first request of a key runs, later ones wait for it and get its result; if it fails, the
key is free again and one of them goes on. What a key created is remembered for a day
(`node/ledger.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from mitos.node.ledger import Ledger
from mitos.wire.errors import ApiError

__all__ = ["KeyUse", "Keyring"]

WAIT_DEADLINE_S = {"fork": 120.0, "template": 3600.0}
"""How long a request waits for another of its key; building a template may take minutes."""


class KeyUse:
    """One request's hold on its key.

    Attributes:
        created: what an earlier request of this key created, or None: then create, and call
            `record`.
    """

    def __init__(self, ledger: Ledger, key: str, kind: str) -> None:
        self._ledger, self._key, self._kind = ledger, key, kind
        self.created = ledger.recall(key, kind)

    def record(self, resources: list[str]) -> None:
        """Notes what this request created."""
        self._ledger.remember(self._key, self._kind, resources)


class Keyring:
    """Keys in use."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def use(self, key: str | None, kind: str) -> AsyncIterator[KeyUse | None]:
        """Holds the key; yields None for a request without one.

        Raises:
            ApiError: another request of the key did not end in time.
        """
        if key is None:
            yield None
            return
        lock = self._locks.setdefault((key, kind), asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_DEADLINE_S[kind]):
                await lock.acquire()
        except TimeoutError:
            raise ApiError(
                "invalid_input",
                "another request with this idempotency key is still running",
                remediation="Wait for it to end, or use a new key.",
                status=409,
            ) from None
        try:
            yield KeyUse(self._ledger, key, kind)
        finally:
            lock.release()
