"""Shared connections: one httpx client for a process's threads, one for each event loop.

Handles come and go; connections stay and are used again. A process made by `os.fork` starts with
none, since two processes must not share a socket. An event loop's client is closed when the loop
shuts down: each holds an asynchronous generator that is suspended until then, and closing it is
what `asyncio.run` does last.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
import threading
from collections.abc import AsyncGenerator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from weakref import WeakKeyDictionary

import httpx

__all__ = ["aclose_http_pools", "async_client", "close_http_pools", "sync_client"]

LIMITS = httpx.Limits(max_connections=512, max_keepalive_connections=64, keepalive_expiry=60.0)
"""Enough for every stream of 32 sandboxes at once; idle ones go after a minute."""


class _Pools:
    """The clients of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: httpx.Client | None = None
        self.loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClient] = WeakKeyDictionary()


class _LoopClient:
    """A loop's client, and the generator that closes it with the loop."""

    def __init__(self) -> None:
        self.client = httpx.AsyncClient(**_options())
        self._guard = self._close_with_loop()
        # Runs it to its first `yield`, which is when the loop takes note of it.
        with contextlib.suppress(StopIteration):
            self._guard.asend(None).send(None)

    async def aclose(self) -> None:
        await self._guard.aclose()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with _pools.lock:
                _pools.loops.pop(asyncio.get_running_loop(), None)
            await self.client.aclose()


_pools = _Pools()


def sync_client() -> httpx.Client:
    """This process's client."""
    with _pools.lock:
        if _pools.client is None:
            _pools.client = httpx.Client(**_options())
        return _pools.client


def close_http_pools() -> None:
    """Closes the idle connections of this process's threads; later calls open new ones.

    Example:
        >>> close_http_pools()
    """
    with _pools.lock:
        client, _pools.client = _pools.client, None
    if client is not None:
        client.close()


def async_client() -> httpx.AsyncClient:
    """The running loop's client."""
    loop = asyncio.get_running_loop()
    with _pools.lock:
        shared = _pools.loops.get(loop)
        if shared is None:
            for other in [other for other in _pools.loops if other.is_closed()]:
                del _pools.loops[other]
            shared = _pools.loops[loop] = _LoopClient()
        return shared.client


async def aclose_http_pools() -> None:
    """Closes the running loop's connections, as the end of the loop does by itself.

    Example:
        >>> await aclose_http_pools()
    """
    with _pools.lock:
        shared = _pools.loops.get(asyncio.get_running_loop())
    if shared is not None:
        await shared.aclose()


def _options() -> dict[str, Any]:
    # A cookie would tie requests with one key to requests with another.
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return {"limits": LIMITS, "verify": _ssl_context(), "cookies": cookies}


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """One for all clients: reading the certificates takes longer than many a call."""
    return httpx.create_ssl_context()


def _forget() -> None:
    global _pools  # noqa: PLW0603  the child's own; the parent's lock may be held for ever here
    _pools = _Pools()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
