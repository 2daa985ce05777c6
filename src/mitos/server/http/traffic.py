"""What all connections of the port share: the application, who is connected, how many may be."""

from __future__ import annotations

import logging
from typing import Protocol, cast

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from mitos.server.http.websocket import WebSocketConnection

__all__ = ["Connected", "Traffic", "Waiting"]

KEEP_ALIVE_S = 75
"""How long a connection may wait for its next request."""

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers."""

MAX_WEBSOCKET_MESSAGE_BYTES = 1 << 20
"""Of one message from a client."""


class Connected(Protocol):
    """A connection."""

    def shutdown(self) -> None:
        """Takes no more requests, and ends with the last one."""

    def abort(self) -> None:
        """Ends at once."""


class Waiting(Connected, Protocol):
    """A connection that waits for its client's next request."""

    def give_way(self) -> None:
        """Closes it at once, since others need the room."""


class Traffic:
    """The application, and the connections that lead to it.

    Args:
        app: serves the requests.
        max_connections: at the same time.

    Attributes:
        config: of the parts that are uvicorn's.
        state: uvicorn's book of connections and running requests.
        connections: those of the book; others than uvicorn's stand in it too.
    """

    def __init__(self, app: ASGIApp, max_connections: int) -> None:
        self.app = app
        self.config = Config(
            app,
            http="h11",
            ws=WebSocketConnection,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            ws_max_size=MAX_WEBSOCKET_MESSAGE_BYTES,
            ws_ping_interval=None,  # TCP asks whether a client is there; a busy one need not answer
            ws_per_message_deflate=False,  # a few bytes would become any number
        )
        self.config.load()
        # The application logs what fails in it; bad requests are their clients' affair.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.state = ServerState()
        self.connections = cast("set[Connected]", self.state.connections)
        self._max_connections = max_connections
        self._waiting: dict[Waiting, None] = {}

    def admit(self) -> bool:
        """True when there is room for another connection.

        The one that has waited longest without a request gives way for it, if there is one.
        """
        if len(self.connections) < self._max_connections:
            return True
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        self.note_busy(oldest)
        oldest.give_way()
        return True

    def note_waiting(self, connection: Waiting) -> None:
        """Says that a connection waits for a request, from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def note_busy(self, connection: Waiting) -> None:
        """Says that a connection has a request, or is gone."""
        self._waiting.pop(connection, None)
