"""The server of the port: binds it, takes connections, and stops within a bounded time.

Binding is done before the server starts, so that the port is known (and refused) at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from starlette.types import ASGIApp

from mitos.server.http.connection import NewConnection
from mitos.server.http.traffic import Traffic
from mitos.server.http.websocket import WebSocketConnection

__all__ = ["BACKLOG", "bind", "prepare", "run"]

_log = logging.getLogger(__name__)

BACKLOG = 512
BEGIN_S = 0.25
"""How long a stop waits for the first request of clients that have just connected."""

STOP_DEADLINE_S = 5.0
"""How long open requests may go on after the server was told to stop; all of it twice this."""

_POLL_S = 0.005

_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}
"""After a minute of silence the kernel asks whether the client is there, and gives up two later."""


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare(listener)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def prepare(listener: socket.socket) -> None:
    """Has the kernel notice when the client of a connection that the socket takes is gone."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE.items():
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


async def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    max_connections: int,
    stop: Callable[[], Awaitable[object]],
    end_requests: Callable[[], Awaitable[None]],
) -> None:
    """Serves until `stop` returns.

    No connection is taken from then on, and requests get a short while to end.

    Args:
        app: serves the requests.
        listener: bound and listening; closed at the end.
        max_connections: at the same time.
        stop: returns when the server shall end.
        end_requests: makes what keeps requests open fail, so that their clients are told.
    """
    traffic = Traffic(app, _budget(max_connections))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: NewConnection(traffic), sock=listener, backlog=BACKLOG
    )
    clock = asyncio.create_task(_keep_date(traffic), name="http-date")
    try:
        await stop()
    finally:
        # asyncio drops a connection that it is just taking when the server closes.
        loop.remove_reader(listener)
        await asyncio.sleep(0)
        server.close()
        await _until_begun(traffic)
        clock.cancel()
        await asyncio.gather(_end(traffic), end_requests())


def _budget(max_connections: int) -> int:
    """Half of the descriptors are for connections at most: sandboxes need the others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(max_connections, max(soft // 2, 1))


async def _keep_date(traffic: Traffic) -> None:
    """Keeps the `Date` of answers right, to the second (RFC 9110, section 6.6.1)."""
    while True:
        traffic.state.default_headers[:] = [(b"date", formatdate(usegmt=True).encode())]
        await asyncio.sleep(1)


async def _until_begun(traffic: Traffic) -> None:
    """A connection that is closed before its first request looks like one that was refused."""
    for _ in range(int(BEGIN_S / _POLL_S)):
        await asyncio.sleep(_POLL_S)  # first of all, so that the last that were taken count too
        if not any(isinstance(each, NewConnection) for each in traffic.connections):
            break


async def _end(traffic: Traffic) -> None:
    """Lets open requests end, then ends them; in the end nothing is connected."""
    state = traffic.state
    for connection in list(traffic.connections):
        if not isinstance(connection, WebSocketConnection):
            connection.shutdown()
    await _until_idle(traffic)
    if state.tasks:
        _log.warning("%d requests did not end in time", len(state.tasks))
    for connection in list(traffic.connections):
        connection.shutdown()
    for task in list(state.tasks):
        task.cancel()
    await _until_idle(traffic)
    for connection in list(traffic.connections):
        connection.abort()


async def _until_idle(traffic: Traffic) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_DEADLINE_S):
            while traffic.state.tasks:
                await asyncio.wait(list(traffic.state.tasks))
