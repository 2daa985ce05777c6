"""Calls over cleartext HTTP/2 with prior knowledge, frame by frame."""

from __future__ import annotations

import socket
from types import TracebackType

import h2.connection
import h2.events

from tests.server.calling import JSON_STREAM
from tests.server.serving import DEADLINE_S, Server


class Http2Call:
    """A connection with one open streaming call; leaving the context drops the connection."""

    def __init__(self, server: Server, path: str, sandbox: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
        self._connection = h2.connection.H2Connection()
        self._connection.initiate_connection()
        self.open(path, sandbox)

    def __enter__(self) -> Http2Call:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def open(self, path: str, sandbox: str) -> None:
        """Starts a call; an earlier one must have ended."""
        self.headers: dict[str, str] = {}
        self._body = bytearray()
        self._ended = False
        self._id = self._connection.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("content-type", JSON_STREAM),
            ("x-sandbox-id", sandbox),
        ]
        self._connection.send_headers(self._id, headers)
        self._flush()

    def send(self, data: bytes, *, ends: bool = False) -> None:
        """Sends request data; `ends` ends the request."""
        self._connection.send_data(self._id, data, end_stream=ends)
        self._flush()

    def reset(self) -> None:
        """Gives the call up."""
        self._connection.reset_stream(self._id)
        self._flush()

    def envelope(self) -> tuple[int, bytes]:
        """The next envelope of the answer."""
        while len(self._body) < 5 or len(self._body) < 5 + int.from_bytes(self._body[1:5], "big"):
            self._receive()
        size = 5 + int.from_bytes(self._body[1:5], "big")
        taken = bytes(self._body[:size])
        del self._body[:size]
        return taken[0], taken[5:]

    def rest(self) -> bytes:
        """The answer to its end."""
        while not self._ended:
            self._receive()
        return bytes(self._body)

    def _receive(self) -> None:
        assert not self._ended, "the answer has ended"
        data = self._socket.recv(65536)
        assert data, "the server closed the connection"
        for event in self._connection.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if getattr(event, "stream_id", None) != self._id:
            return
        match event:
            case h2.events.ResponseReceived():
                self.headers |= {
                    name.decode() if isinstance(name, bytes) else name:
                    value.decode() if isinstance(value, bytes) else value
                    for name, value in event.headers
                }  # fmt: skip
            case h2.events.DataReceived():
                self._body += event.data
                self._connection.acknowledge_received_data(event.flow_controlled_length, self._id)
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self._ended = True

    def _flush(self) -> None:
        self._socket.sendall(self._connection.data_to_send())
