"""The listening port: hypercorn speaks HTTP/1.1, cleartext HTTP/2 and WebSockets on it.

Binding is done here, before the server starts, so that the port is known (and refused) at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp

__all__ = ["bind", "run"]

_log = logging.getLogger(__name__)

BACKLOG = 512
KEEP_ALIVE_S = 75
STOP_DEADLINE_S = 5.0
"""How long open requests may go on after the server was told to stop; all of it twice this."""


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    stop: Callable[[], Awaitable[object]],
    end_requests: Callable[[], Awaitable[None]],
) -> None:
    """Serves until `stop` returns.

    No connection is taken from then on, and requests get a short while to end. The descriptor goes
    over to hypercorn, which closes it; the socket object is empty afterwards.

    Args:
        app: serves the requests.
        listener: bound and listening.
        stop: returns when the server shall end; called more than once.
        end_requests: makes what keeps requests open fail, so that their clients are told.
    """
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.graceful_timeout = STOP_DEADLINE_S
    config.h11_max_incomplete_size = 64 * 1024
    config.websocket_max_message_size = 1 << 20
    config.wsgi_max_body_size = 0
    config.accesslog = None
    config.errorlog = logging.getLogger("mitos.server.hypercorn")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_serve(app, config, stop), name="http-server")
        await stop()
        await end_requests()


async def _serve(app: ASGIApp, config: Config, stop: Callable[[], Awaitable[object]]) -> None:
    """Hypercorn, with a deadline of ours: closing its port waits for every client to go."""
    try:
        async with asyncio.timeout(None) as limit:

            async def told() -> None:
                await stop()
                limit.reschedule(asyncio.get_running_loop().time() + 2 * STOP_DEADLINE_S)

            await serve(app, config, shutdown_trigger=told)  # type: ignore[arg-type]
    except TimeoutError:
        _log.warning("some connections did not end in time")
