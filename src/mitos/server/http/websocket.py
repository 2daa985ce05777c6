"""WebSockets: uvicorn's, with a bound on a client that does not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from mitos.server.http.deadline import Deadline

__all__ = ["WRITE_STALL_S", "WebSocketConnection"]

WRITE_STALL_S = 120.0
"""How long a client may take nothing of what it is sent."""


class WebSocketConnection(WSProtocol):
    """One WebSocket, taken over from HTTP/1.1 with its handshake."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stalled = Deadline(WRITE_STALL_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stalled.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled.start()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled.stop()
        super().resume_writing()

    def abort(self) -> None:
        """Ends the connection at once."""
        transport = self.transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
