"""A program for the inside of a sandbox: it answers each request as the request's path says.

    /answer/<name>/…

All names are in `ANSWERS` and `SOCKET_ANSWERS`. Whatever is asked, it never crashes: a connection
is a thread, and what goes wrong in it ends it.
"""

import base64
import hashlib
import socket
import struct
import sys
import threading
import time

HEAD = b"HTTP/1.1 %s\r\n%s\r\n"
TYPE = b"Content-Type: text/plain\r\n"
BIG = b"0123456789abcdef" * 65536

ANSWERS = {
    "plain": HEAD % (b"200 OK", TYPE + b"Content-Length: 5\r\n") + b"plain",
    "chunked": HEAD % (b"200 OK", b"Transfer-Encoding: chunked\r\n") + b"5\r\nplain\r\n0\r\n\r\n",
    "until-close": HEAD % (b"200 OK", TYPE) + b"plain",
    "no-content": HEAD % (b"204 No Content", b""),
    "no-content-with-body": HEAD % (b"204 No Content", b"Content-Length: 5\r\n") + b"plain",
    "not-modified": HEAD % (b"304 Not Modified", b"Content-Length: 5\r\n"),
    "reset-content": HEAD % (b"205 Reset Content", b"Content-Length: 0\r\n"),
    "continue": HEAD % (b"100 Continue", b"")
    + HEAD % (b"200 OK", b"Content-Length: 2\r\n")
    + b"ok",
    "continues": HEAD % (b"100 Continue", b"") * 50,
    "early-hints": HEAD % (b"103 Early Hints", b"Link: </a>\r\n")
    + HEAD % (b"200 OK", b"Content-Length: 2\r\n")
    + b"ok",
    "switching": HEAD % (b"101 Switching Protocols", b"Upgrade: echo\r\nConnection: Upgrade\r\n"),
    "switching-h2c": HEAD
    % (b"101 Switching Protocols", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    "too-little": HEAD % (b"200 OK", b"Content-Length: 500\r\n") + b"plain",
    "too-much": HEAD % (b"200 OK", b"Content-Length: 2\r\n") + b"plain",
    "two-lengths": HEAD % (b"200 OK", b"Content-Length: 2\r\nContent-Length: 5\r\n") + b"plain",
    "length-and-chunks": HEAD % (b"200 OK", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n")
    + b"5\r\nplain\r\n0\r\n\r\n",
    "bad-length": HEAD % (b"200 OK", b"Content-Length: -1\r\n") + b"plain",
    "huge-length": HEAD % (b"200 OK", b"Content-Length: 99999999999999999999\r\n") + b"plain",
    "bad-chunk": HEAD % (b"200 OK", b"Transfer-Encoding: chunked\r\n") + b"zz\r\nplain\r\n",
    "huge-chunk": HEAD % (b"200 OK", b"Transfer-Encoding: chunked\r\n") + b"fffffffffffffffff\r\n",
    "half-a-chunk": HEAD % (b"200 OK", b"Transfer-Encoding: chunked\r\n") + b"500\r\nplain",
    "unknown-coding": HEAD % (b"200 OK", b"Transfer-Encoding: gzip\r\n") + b"plain",
    "nothing": b"",
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
    "half-a-head": b"HTTP/1.1 200 OK\r\nContent-",
    "endless-head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    "no-reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "old": b"HTTP/1.0 200 OK\r\n\r\nok",
    "older": b"ok",
    "status-0": HEAD % (b"000 Nothing", b"Content-Length: 0\r\n"),
    "status-199": HEAD % (b"199 Odd", b""),
    "status-600": HEAD % (b"600 Odd", b"Content-Length: 0\r\n"),
    "status-999": HEAD % (b"999 Odd", b"Content-Length: 0\r\n"),
    "status-1000": HEAD % (b"1000 Odd", b"Content-Length: 0\r\n"),
    "unauthorized": HEAD % (b"401 No", b"WWW-Authenticate: Basic\r\nContent-Length: 0\r\n"),
    "upgrade-required": HEAD % (b"426 No", b"Upgrade: TLS/1.0\r\nContent-Length: 0\r\n"),
    "error": HEAD % (b"500 Oops", b"Content-Length: 4\r\n") + b"oops",
    "big": HEAD % (b"200 OK", b"Content-Length: %d\r\n" % len(BIG)) + BIG,
    "hop-by-hop": HEAD
    % (b"200 OK", b"Connection: X-Own, keep-alive\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n"),
    "odd-headers": HEAD % (b"200 OK", b"X-Odd: \xff\xfe\r\nx: \r\nContent-Length: 2\r\n") + b"ok",
    "bad-headers": HEAD % (b"200 OK", b"X Odd : 1\r\n\x01: 2\r\nContent-Length: 2\r\n") + b"ok",
    "two-answers": (HEAD % (b"200 OK", b"Content-Length: 2\r\n") + b"ok") * 2,
    "trailers": HEAD % (b"200 OK", b"Transfer-Encoding: chunked\r\n")
    + b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n",
}
"""What is sent at once, without a look at the body; then the connection is closed."""


def frame(opcode: int, payload: bytes, *, fin: int = 0x80, mask: bool = False) -> bytes:
    """A WebSocket frame (RFC 6455, section 5.2)."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", fin | opcode, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", fin | opcode, masked | 126, size)
    else:
        head = struct.pack("!BBQ", fin | opcode, masked | 127, size)
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


SOCKET_ANSWERS = {
    "echo": b"",
    "says-hello": frame(1, b"hello"),
    "closes": frame(8, struct.pack("!H", 1000) + b"bye"),
    "closes-oddly": frame(8, struct.pack("!H", 1005)),
    "closes-with-999": frame(8, struct.pack("!H", 999)),
    "closes-with-one-byte": frame(8, b"x"),
    "bad-opcode": frame(11, b"x"),
    "reserved-bits": frame(1, b"x", fin=0xF0),
    "masks": frame(1, b"hello", mask=True),
    "bad-text": frame(1, b"\xff\xfe"),
    "pings": frame(9, b"?") * 100,
    "long-ping": frame(9, b"x" * 200),
    "parts": frame(1, b"a", fin=0) + frame(0, b"b", fin=0) + frame(0, b"c"),
    "endless-parts": frame(2, b"a" * 1000, fin=0) + frame(0, b"b" * 1000, fin=0) * 500,
    "part-of-nothing": frame(0, b"c"),
    "half-a-frame": frame(2, b"x" * 1000)[:500],
    "huge-frame": b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 1000,
    "many": frame(2, b"x" * 100) * 2000,
    "large": frame(2, b"x" * 900_000),
    "garbage": b"\xff" * 500,
}
"""What is sent after the handshake."""

MANNERS = ("closes", "resets", "waits", "reads-first", "drips")
"""What it does around its answer: the last part of the path."""


def answer(connection: socket.socket) -> None:
    """Serves one connection."""
    connection.settimeout(20)
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            return
        head += data
    parts = head.split(b" ")[1].decode("latin-1").partition("?")[0].split("/")
    name, manner = parts[2], parts[3]
    data = handshake(head, name) if name.startswith("socket-") else ANSWERS[name]
    if manner == "reads-first":
        drain(connection, 0.2)
    if manner == "drips":
        for i in range(min(len(data), 40)):
            connection.sendall(data[i : i + 1])
        data = data[40:]
    connection.sendall(data)
    while name == "socket-echo" and (data := connection.recv(65536)):
        connection.sendall(data)
    if manner == "resets":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif manner == "waits":
        drain(connection, 3)


def handshake(head: bytes, name: str) -> bytes:
    """The answer to a WebSocket's handshake (RFC 6455, section 4.2.2), and what is said then."""
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")]
    key = (lines or [b":"])[0].partition(b":")[2].strip()
    proof = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    accepted = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
    said = SOCKET_ANSWERS[name[len("socket-") :]]
    return HEAD % (b"101 Yes", accepted % base64.b64encode(proof)) + said


def drain(connection: socket.socket, quiet_s: float) -> None:
    """Takes in what comes, until nothing does."""
    connection.settimeout(quiet_s)
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass
    connection.settimeout(20)


def serve(connection: socket.socket) -> None:
    try:
        answer(connection)
    except (OSError, KeyError, IndexError):
        pass
    finally:
        connection.close()


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            time.sleep(0.1)
            continue
        threading.Thread(target=serve, args=(accepted,), daemon=True).start()
