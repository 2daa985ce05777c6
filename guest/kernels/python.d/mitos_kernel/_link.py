"""Messages to and from the agent: section 5 of spec/guest-link.md."""

import _thread
import json
import os
import socket
import struct

CELL, RESEED, ENVIRONMENT = 1, 2, 3
STDOUT, STDERR, RESULT, ERROR, DONE, READY, RESEEDED = range(1, 8)

MESSAGE_LIMIT = 96 << 20
HEADER = struct.Struct("!IB")


class Link:
    """Messages to and from the agent. A message is never interrupted half-way."""

    def __init__(self, descriptor):
        self._socket = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)
        self._lock = _thread.allocate_lock()

    def send(self, kind, payload=b""):
        with self._lock:
            self._socket.sendall(HEADER.pack(len(payload), kind) + payload)

    def receive(self):
        length, kind = HEADER.unpack(self._exactly(HEADER.size))
        return kind, self._exactly(length)

    def close(self):
        self._socket.close()

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(min(size - len(data), 1 << 20))
            if not part:
                os._exit(0)
            data += part
        return bytes(data)


def encode_json(value):
    return json.dumps(value).encode("ascii")


def clean(text):
    """The text without lone surrogates, which no wire can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
