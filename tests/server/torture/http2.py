"""Clients of cleartext HTTP/2 that do all that a client may, and much that it may not."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW")
BODIES = ("none", "whole", "unended", "big", "padded", "short", "trailers")
HEADERS: dict[str, list[tuple[str, str]]] = {
    "plain": [],
    "te": [("te", "trailers")],
    "odd": [("x-odd", "ÿ"), ("cookie", "a=b"), ("cookie", "c=d")],
    "host": [("host", "evil.example")],
    "connection": [("connection", "close")],
    "encoding": [("transfer-encoding", "chunked")],
    "long": [("x-long", "x" * 30_000)],
    "many": [(f"x-{number}", "y") for number in range(200)],
}
MANNERS = (
    "reads-all",
    "leaves",
    "resets-stream",
    "resets-connection",
    "goes-away",
    "no-window",
    "many-streams",
    "pings",
    "priorities",
    "garbage",
    "settings",
    "rapid-resets",
)
READ_S = 1.0


def request(dice: random.Random, path: str, key: str) -> tuple[list[tuple[str, str]], str, str]:
    """The headers of a generated request, the kind of its body, and its name."""
    method, body = dice.choice(METHODS), dice.choice(BODIES)
    headers = dice.choice(list(HEADERS))
    special = [(":method", method), (":authority", "localhost")]
    if method != "CONNECT":
        special += [(":scheme", "http"), (":path", path)]
    plain = [("authorization", f"Bearer {key}"), *HEADERS[headers]]
    if body == "short":
        plain.append(("content-length", "900"))
    return special + plain, body, f"{method} body={body} headers={headers}"


def act(
    address: tuple[str, int], headers: list[tuple[str, str]], body: str, manner: str
) -> list[str]:
    """Sends a request in one of the manners; the statuses that were answered."""
    with (
        contextlib.suppress(OSError, h2.exceptions.ProtocolError),
        socket.create_connection(address, timeout=READ_S) as raw,
    ):
        return _Client(raw, manner).run(headers, body)
    return []


class _Client:
    def __init__(self, raw: socket.socket, manner: str) -> None:
        self._raw = raw
        self._manner = manner
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self._h2.initiate_connection()
        if manner == "no-window":
            self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self._flush()

    def run(self, headers: list[tuple[str, str]], body: str) -> list[str]:
        """Sends the request and does as its manner says; the statuses that came back."""
        count = {"many-streams": 20, "rapid-resets": 60}.get(self._manner, 1)
        for number in range(count):
            self._send(1 + 2 * number, headers, body)
            if self._manner == "rapid-resets":
                self._h2.reset_stream(1 + 2 * number)
                self._flush()
        if self._manner == "leaves":
            return []
        if self._manner == "resets-connection":
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return []
        self._misbehave()
        self._flush()
        return self._read(count)

    def _misbehave(self) -> None:
        match self._manner:
            case "resets-stream":
                self._h2.reset_stream(1)
            case "goes-away":
                self._h2.close_connection()
            case "pings":
                for _ in range(200):
                    self._h2.ping(b"12345678")
            case "priorities":
                for number in range(1, 200, 2):
                    self._h2.prioritize(number, weight=7, depends_on=0)
            case "settings":
                for _ in range(50):
                    self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
            case "garbage":
                self._flush()
                self._raw.sendall(b"\xff" * 200)

    def _send(self, stream_id: int, headers: list[tuple[str, str]], body: str) -> None:
        self._h2.send_headers(stream_id, headers, end_stream=body == "none")
        if body in ("whole", "short"):
            self._h2.send_data(stream_id, b"some body", end_stream=True)
        elif body == "unended":
            self._h2.send_data(stream_id, b"some body")
        elif body == "padded":
            self._h2.send_data(stream_id, b"some body", end_stream=True, pad_length=200)
        elif body == "big":
            for _ in range(3):
                self._h2.send_data(stream_id, b"x" * 16_000)
            self._h2.send_data(stream_id, b"", end_stream=True)
        elif body == "trailers":
            self._h2.send_data(stream_id, b"some body")
            self._h2.send_headers(stream_id, [("x-trailer", "1")], end_stream=True)
        self._flush()

    def _read(self, count: int) -> list[str]:
        statuses: list[str] = []
        until, ended = time.monotonic() + READ_S, 0
        self._raw.settimeout(0.15)
        with contextlib.suppress(OSError):
            while time.monotonic() < until and ended < count and (data := self._raw.recv(65536)):
                for event in self._h2.receive_data(data):
                    ended += self._take(event, statuses)
                self._flush()
        return statuses

    def _take(self, event: h2.events.Event, statuses: list[str]) -> bool:
        """Notes a status; True for the end of a stream."""
        match event:
            case h2.events.ResponseReceived():
                statuses += [str(value) for name, value in event.headers if "status" in str(name)]
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() | h2.events.StreamReset():
                return True
        return False

    def _flush(self) -> None:
        self._raw.sendall(self._h2.data_to_send())
