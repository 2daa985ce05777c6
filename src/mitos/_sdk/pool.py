"""Shared connections: one httpx client for a process's threads, one for each event loop.

Handles come and go; connections stay and are used again. A process made by `os.fork` gets its own
client, since two processes must not share a socket. A loop's client is closed with the last
asynchronous handle that uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from weakref import WeakKeyDictionary

import httpx

__all__ = ["close_http_pools", "lease_async", "lease_sync", "release_async", "release_sync"]

LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=60.0)

_lock = threading.Lock()
_clients: dict[int, httpx.Client] = {}


def lease_sync() -> httpx.Client:
    """This process's client."""
    with _lock:
        client = _clients.get(os.getpid())
        if client is None or client.is_closed:
            client = _clients[os.getpid()] = httpx.Client(limits=LIMITS)
        return client


def release_sync() -> None:
    """Nothing to do: a process keeps its client until `close_http_pools` or its end."""


def close_http_pools() -> None:
    """Closes this process's idle connections; later calls open new ones.

    Example:
        >>> close_http_pools()
    """
    with _lock:
        client = _clients.pop(os.getpid(), None)
    if client is not None:
        client.close()


class _LoopClient:
    """A loop's client and how many handles use it."""

    def __init__(self) -> None:
        self.client = httpx.AsyncClient(limits=LIMITS)
        self.users = 0


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClient] = WeakKeyDictionary()


def lease_async() -> httpx.AsyncClient:
    """The running loop's client; give it back with `release_async`."""
    loop = asyncio.get_running_loop()
    shared = _loops.get(loop)
    if shared is None:
        shared = _loops[loop] = _LoopClient()
    shared.users += 1
    return shared.client


async def release_async() -> None:
    """Gives the running loop's client back; the last one to do so closes it."""
    loop = asyncio.get_running_loop()
    shared = _loops.get(loop)
    if shared is None:
        return
    shared.users -= 1
    if shared.users <= 0:
        with contextlib.suppress(KeyError):
            del _loops[loop]
        await shared.client.aclose()
