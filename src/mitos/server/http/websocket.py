"""WebSockets: uvicorn's, with a bound on a client that does not read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import Ping

from mitos.server.http.deadline import WriteStall

__all__ = ["WebSocketConnection"]

MAX_UNSENT_BYTES = 64 * 1024
"""Of what a client has yet to take, above which its pings are not answered.

RFC 6455, section 5.5.3, has the most recent one answered.
"""


class WebSocketConnection(WSProtocol):
    """One WebSocket, taken over from HTTP/1.1 with its handshake."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stalled = WriteStall(transport)
        if transport.get_write_buffer_size():  # of an answer before the handshake
            self.pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stalled.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled.start()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled.stop()
        super().resume_writing()

    def handle_ping(self, event: Ping) -> None:
        """Answers it, unless what was sent before has not been taken."""
        if self.transport.get_write_buffer_size() <= MAX_UNSENT_BYTES:
            super().handle_ping(event)

    def abort(self) -> None:
        """Ends the connection at once."""
        transport = self.transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
