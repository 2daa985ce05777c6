"""HTTP/1.1: uvicorn's protocol over h11, with bounds on what a client may leave undone.

a head that does not come    the connection is closed
an answer that nobody reads  the connection is closed
a body nobody waits for      is read and dropped for a moment, so that a client that sends before
it reads gets the answer; then the connection is closed
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mitos.server.http.deadline import DRAIN_DEADLINE_S, Deadline, WriteStall
from mitos.server.http.traffic import Traffic
from mitos.wire.errors import ApiError

__all__ = ["HEAD_DEADLINE_S", "Http1Connection"]

HEAD_DEADLINE_S = 15.0
"""How long a request's head may take from its first byte; also the first byte of a connection."""


class Http1Connection(H11Protocol):
    """One connection.

    Args:
        traffic: what it belongs to.
    """

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic.config, traffic.state, {})
        self._traffic = traffic
        self._head_due = Deadline(HEAD_DEADLINE_S, self._close)
        self._body_due = Deadline(DRAIN_DEADLINE_S, self._close)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stalled = WriteStall(transport)
        self._traffic.note_waiting(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._head_due.start()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._head_due.stop()
            if self.conn.our_state is not h11.DONE:
                self._body_due.stop()
                self._traffic.note_busy(self)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._leave()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, where an answer is still possible, and ends the connection."""
        error = ApiError("invalid_input", "the request is not HTTP/1.1", cause=msg)
        body = json.dumps(error.envelope()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if self.cycle is not None:
            self.cycle.disconnected = True  # whatever it says now comes too late
            self.cycle.message_event.set()
        with contextlib.suppress(h11.LocalProtocolError):
            events = (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def on_response_complete(self) -> None:
        self._traffic.note_waiting(self)
        if self.conn.their_state is h11.SEND_BODY:
            self._body_due.start()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stalled.start()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled.stop()
        super().resume_writing()

    def shutdown(self) -> None:
        """Takes no more requests; the connection ends with the one there is."""
        if self.cycle is None or self.cycle.response_complete:
            self._close()
        else:
            self.cycle.keep_alive = False

    def give_way(self) -> None:
        """Closes the connection at once, since others need the room."""
        self.transport.abort()

    def _close(self) -> None:
        """Closes the connection; what is written still goes out."""
        self._traffic.note_busy(self)
        self.transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self.transport.abort()

    def _leave(self) -> None:
        """Another protocol has the transport from now on, or nobody."""
        self._traffic.note_busy(self)
        for each in (self._head_due, self._body_due, self._stalled):
            each.stop()
