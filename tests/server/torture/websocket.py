"""WebSocket clients that do all that a client may, and much that it may not."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time

from tests.server.torture.program import frame

HANDSHAKES: dict[str, bytes] = {
    "right": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "subprotocols": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: a, b\r\n",
    "deflate": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    "no-key": b"Sec-WebSocket-Version: 13\r\n",
    "bad-key": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n",
    "old": b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "no-version": b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "with-a-body": b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Content-Length: 5\r\n",
}

SAYINGS: dict[str, bytes] = {
    "nothing": b"",
    "text": frame(1, b"hello", mask=True),
    "binary": frame(2, b"\x00\xff", mask=True),
    "parts": frame(1, b"a", fin=0, mask=True) + frame(0, b"b", mask=True),
    "endless-parts": frame(2, b"a" * 5000, fin=0, mask=True)
    + frame(0, b"b" * 5000, fin=0, mask=True) * 300,
    "unmasked": frame(1, b"hello"),
    "bad-text": frame(1, b"\xff\xfe", mask=True),
    "bad-opcode": frame(11, b"x", mask=True),
    "reserved-bits": frame(1, b"x", fin=0xF0, mask=True),
    "pings": frame(9, b"?", mask=True) * 200,
    "long-ping": frame(9, b"x" * 200, mask=True),
    "closes": frame(8, struct.pack("!H", 1000), mask=True),
    "closes-oddly": frame(8, struct.pack("!H", 1005), mask=True),
    "closes-with-one-byte": frame(8, b"x", mask=True),
    "speaks-after-closing": frame(8, struct.pack("!H", 1000), mask=True)
    + frame(1, b"hello", mask=True),
    "huge-frame": b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 1000,
    "large": frame(2, b"x" * 1_500_000, mask=True),
    "many": frame(2, b"x" * 50, mask=True) * 2000,
    "half-a-frame": frame(2, b"x" * 1000, mask=True)[:500],
    "json": frame(1, b'{"kind": "input", "data": "!!"}', mask=True),
    "envelope": frame(2, b"\x00\x00\x00\x00\x02{}", mask=True),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}

MANNERS = ("reads-all", "leaves", "resets", "half-closes", "never-reads", "does-not-wait")
READ_S = 1.0


def request(dice: random.Random, path: str, key: str) -> tuple[bytes, bytes, str]:
    """The handshake, what is said after it, and the name of both."""
    handshake, saying = dice.choice(list(HANDSHAKES)), dice.choice(list(SAYINGS))
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    ).encode()
    return head + HANDSHAKES[handshake] + b"\r\n", SAYINGS[saying], f"{handshake} says={saying}"


def act(address: tuple[str, int], head: bytes, said: bytes, manner: str) -> bytes:
    """Opens a WebSocket in one of the manners; the answer's head, and what was read after it."""
    received = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=READ_S) as connection,
    ):
        if manner == "does-not-wait":
            connection.sendall(head + said)
        else:
            connection.sendall(head)
            while b"\r\n\r\n" not in received:
                data = connection.recv(4096)
                if not data:
                    return received
                received += data
            connection.sendall(said)
        if manner == "leaves":
            return received
        if manner == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return received
        if manner == "never-reads":
            time.sleep(0.1)
            return received
        if manner == "half-closes":
            connection.shutdown(socket.SHUT_WR)
        received += _read(connection)
    return received


def _read(connection: socket.socket) -> bytes:
    received, until = b"", time.monotonic() + READ_S
    connection.settimeout(0.1)
    with contextlib.suppress(OSError):
        while time.monotonic() < until and (data := connection.recv(65536)):
            received += data
    return received
