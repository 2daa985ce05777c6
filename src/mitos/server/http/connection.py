"""A new connection: its first bytes say whether HTTP/2 or HTTP/1.1 follows."""

from __future__ import annotations

import asyncio

from mitos.server.http.deadline import Deadline
from mitos.server.http.http1 import HEAD_DEADLINE_S, Http1Connection
from mitos.server.http.http2 import Http2Connection
from mitos.server.http.traffic import Traffic

__all__ = ["NewConnection"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client that knows that the server speaks HTTP/2 begins with (RFC 9113, section 3.4)."""

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class NewConnection(asyncio.Protocol):
    """Waits for the first bytes, then hands the transport on.

    Args:
        traffic: what the connection belongs to.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._head_due = Deadline(HEAD_DEADLINE_S, self.give_way)
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._traffic.admit():
            transport.write(FULL)
            transport.close()
            return
        self._traffic.connections.add(self)
        self._traffic.note_waiting(self)
        self._head_due.start()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._received += data
        if len(self._received) < len(PREFACE) and PREFACE.startswith(self._received):
            return
        self._leave()
        is_http2 = self._received.startswith(PREFACE)
        following = (Http2Connection if is_http2 else Http1Connection)(self._traffic)
        self._transport.set_protocol(following)
        following.connection_made(self._transport)
        following.data_received(self._received)

    def shutdown(self) -> None:
        """Ends it; the server stops."""
        self._transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        self._transport.abort()

    def give_way(self) -> None:
        """Closes it; its client never began."""
        self._leave()
        self._transport.close()

    def _leave(self) -> None:
        self._head_due.stop()
        self._traffic.note_busy(self)
        self._traffic.connections.discard(self)
