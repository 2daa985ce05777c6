"""The listening port: hypercorn speaks HTTP/1.1, cleartext HTTP/2 and WebSockets on it.

Binding is done here, before the server starts, so that the port is known (and refused) at once.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp

__all__ = ["bind", "run"]

BACKLOG = 512
KEEP_ALIVE_S = 75
STOP_DEADLINE_S = 5.0
"""How long open requests may go on after the server was told to stop."""


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


async def run(app: ASGIApp, listener: socket.socket, stop: Callable[[], Awaitable[object]]) -> None:
    """Serves until `stop` returns; then open requests get a short while to end.

    The descriptor goes over to hypercorn, which closes it; the socket object is empty afterwards.
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
    await serve(app, config, shutdown_trigger=stop)  # type: ignore[arg-type]
