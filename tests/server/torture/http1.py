"""Clients of HTTP/1.1 that do all that a client may, and much that it may not."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW")

BODIES: dict[str, tuple[bytes, bytes]] = {
    "none": (b"", b""),
    "empty": (b"Content-Length: 0\r\n", b""),
    "whole": (b"Content-Length: 9\r\n", b"some body"),
    "short": (b"Content-Length: 900\r\n", b"some body"),
    "long": (b"Content-Length: 4\r\n", b"some body"),
    "chunked": (b"Transfer-Encoding: chunked\r\n", b"9\r\nsome body\r\n0\r\n\r\n"),
    "half-chunked": (b"Transfer-Encoding: chunked\r\n", b"9\r\nsome body\r\n"),
    "bad-chunk": (b"Transfer-Encoding: chunked\r\n", b"xyz\r\n"),
    "both": (
        b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n",
        b"9\r\nsome body\r\n0\r\n\r\n",
    ),
    "two-lengths": (b"Content-Length: 9\r\nContent-Length: 4\r\n", b"some body"),
    "gzip": (b"Transfer-Encoding: gzip, chunked\r\n", b"9\r\nsome body\r\n0\r\n\r\n"),
    "expects": (b"Content-Length: 9\r\nExpect: 100-continue\r\n", b"some body"),
    "big": (b"Content-Length: 3000000\r\n", b"x" * 3_000_000),
}

HEADERS: dict[str, bytes] = {
    "plain": b"",
    "close": b"Connection: close\r\n",
    "keep-alive": b"Connection: keep-alive\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "tls": b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "names-all": b"Connection: host, content-length, transfer-encoding, authorization\r\n",
    "odd": b"X-Odd: \xff\xfe\r\nX-Odd:\r\nCookie: a=b; mitos=\r\n",
    "te": b"TE: trailers, deflate\r\nTrailer: X\r\n",
    "forwarded": b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: gopher\r\n",
}

MANNERS = (
    "reads-all",
    "reads-one-byte",
    "leaves",
    "resets",
    "half-closes",
    "never-reads",
    "drips",
    "pipelines",
    "sends-the-body-late",
)
"""How it goes about it."""

READ_S = 1.0
"""How long an answer is read at most; many never end."""


def request(dice: random.Random, path: str, key: str) -> tuple[bytes, bytes, str]:
    """Head and body of a generated request, and its name."""
    method, body, headers = (
        dice.choice(METHODS),
        dice.choice(list(BODIES)),
        dice.choice(list(HEADERS)),
    )
    framing, content = BODIES[body]
    version = dice.choice(("1.1", "1.1", "1.1", "1.0"))
    line = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    head = line.encode() + HEADERS[headers] + framing + b"\r\n"
    return head, content, f"{method} {version} body={body} headers={headers}"


def act(address: tuple[str, int], head: bytes, body: bytes, manner: str) -> bytes:
    """Sends a request in one of the manners; what was read of the answer."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=READ_S) as connection,
    ):
        _send(connection, head, body, manner)
        return _receive(connection, manner)
    return b""


def _send(connection: socket.socket, head: bytes, body: bytes, manner: str) -> None:
    match manner:
        case "drips":
            for i in range(0, min(len(head), 60), 3):
                connection.sendall(head[i : i + 3])
            connection.sendall(head[60:] + body)
        case "pipelines":
            connection.sendall((head + body) * 3)
        case "sends-the-body-late":
            connection.sendall(head)
            time.sleep(0.05)
            connection.sendall(body)
        case "never-reads":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + body)
        case _:
            connection.sendall(head + body)


def _receive(connection: socket.socket, manner: str) -> bytes:
    match manner:
        case "leaves":
            return b""
        case "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        case "never-reads":
            time.sleep(0.1)
            return b""
        case "reads-one-byte":
            return connection.recv(1)
        case "half-closes":
            connection.shutdown(socket.SHUT_WR)
    return _read(connection)


def _read(connection: socket.socket) -> bytes:
    """The answer, until it ends or nothing comes for a moment."""
    received, until = b"", time.monotonic() + READ_S
    connection.settimeout(0.15)
    with contextlib.suppress(OSError):
        while time.monotonic() < until and (data := connection.recv(65536)):
            received += data
    return received
