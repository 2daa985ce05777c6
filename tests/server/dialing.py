"""Terminals over both WebSocket routes, message by message."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import websocket

from tests.server.calling import END_STREAM, SERVICE, envelope
from tests.server.serving import DEADLINE_S, Server

CURRENT, LEGACY = "connect.sandbox.v1", "mitos.pty.v1"
PTY: dict[str, Any] = {"open": {"pty": {"size": {"cols": 80, "rows": 24}}}}


def route(subprotocol: str, query: str) -> str:
    return (f"{SERVICE}/Exec" if subprotocol == CURRENT else "/v1/pty") + f"?{query}"


@contextlib.contextmanager
def dial(
    server: Server, subprotocol: str, query: str, **options: Any
) -> Iterator[websocket.WebSocket]:
    """A connection to one of the routes."""
    url = server.url.replace("http", "ws", 1) + route(subprotocol, query)
    options = {"header": {"Authorization": f"Bearer {server.key}"} if server.key else {}} | options
    connection = websocket.create_connection(
        url, subprotocols=[subprotocol], timeout=DEADLINE_S, **options
    )
    transport = connection.sock
    try:
        yield connection
    finally:
        connection.close(timeout=DEADLINE_S)
        transport.close()


@contextlib.contextmanager
def opened(
    server: Server, sandbox: str, message: dict[str, Any] | None = None
) -> Iterator[websocket.WebSocket]:
    """A session of the current route."""
    with dial(server, CURRENT, f"sandbox={sandbox}") as connection:
        connection.send_binary(envelope(message or PTY))
        yield connection


def refusal(server: Server, subprotocol: str, query: str, **options: Any) -> tuple[int, str]:
    """Status and code of a handshake that is refused."""
    with (
        pytest.raises(websocket.WebSocketBadStatusException) as caught,
        dial(server, subprotocol, query, **options),
    ):
        pass
    return caught.value.status_code, json.loads(caught.value.resp_body)["error"]["code"]


def stdin(text: bytes) -> bytes:
    return envelope({"stdin": base64.b64encode(text).decode()})


def rest(connection: websocket.WebSocket) -> tuple[bytes, dict[str, Any], int]:
    """Output, exit and close code of a session of the current route."""
    output, ended = b"", {}
    while True:
        kind, data = connection.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return output, ended, int.from_bytes(data[:2], "big")
        assert kind == websocket.ABNF.OPCODE_BINARY
        assert int.from_bytes(data[1:5], "big") == len(data) - 5
        body = json.loads(data[5:])
        if data[0] == END_STREAM:
            ended = body["exit"]
        else:
            (piece,) = body.values()
            output += base64.b64decode(piece)


def legacy_rest(connection: websocket.WebSocket) -> tuple[bytes, dict[str, Any], int]:
    """The same of the older route."""
    output, ended = b"", {}
    while True:
        kind, data = connection.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return output, ended, int.from_bytes(data[:2], "big")
        assert kind == websocket.ABNF.OPCODE_TEXT
        body = json.loads(data)
        if body["kind"] == "exit":
            ended = body
        else:
            output += base64.b64decode(body["data"])


def read_until(connection: websocket.WebSocket, text: bytes) -> None:
    """Reads output of the current route until it holds the text."""
    output = b""
    while text not in output:
        output += base64.b64decode(json.loads(connection.recv()[5:])["stdout"])


def typed(data: bytes) -> dict[str, Any]:
    return {"kind": "input", "data": base64.b64encode(data).decode()}
