"""Connect's streaming frames in JSON: bytes in, messages out, no sockets.

    flags u8 | length u32, big-endian | payload        flag 1: compressed, flag 2: the end of the
    stream

Source: the Connect protocol's specification. Both forms of the SDK share this file.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from mitos.errors import AgentRunError

__all__ = [
    "END_STREAM",
    "MAX_FRAME_BYTES",
    "FrameReader",
    "decode_bytes",
    "encode_bytes",
    "encode_frame",
]

COMPRESSED = 1
END_STREAM = 2

MAX_FRAME_BYTES = 256 << 20
"""More than a server may send in one message: a kernel event of 96 MiB in base64, and room."""

_HEADER = struct.Struct("!BI")


def encode_frame(message: dict[str, Any], flags: int = 0) -> bytes:
    """A message as one frame."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    return _HEADER.pack(flags, len(payload)) + payload


def encode_bytes(data: bytes) -> str:
    """Bytes as proto-JSON writes them."""
    return base64.b64encode(data).decode("ascii")


def decode_bytes(text: str) -> bytes:
    """Bytes from proto-JSON: standard or URL-safe base64, padded or not.

    Raises:
        ValueError: it is not base64.
    """
    standard = text.replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4))


class FrameReader:
    """Reassembles frames from a response body.

    After `feed` has yielded the last message, `ended` is True and `error` holds the server's error
    object, if the stream ended in one. What follows the end is dropped.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.ended = False
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yields each message that `data` completes.

        Raises:
            AgentRunError: `internal_error` for a frame that may not be.
        """
        self._buffer += data
        while not self.ended and len(self._buffer) >= _HEADER.size:
            flags, length = _HEADER.unpack_from(self._buffer)
            _check_header(flags, length)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if flags & END_STREAM:
                self._end(payload)
            elif payload:
                yield _message(payload)

    def _end(self, payload: bytes) -> None:
        self.ended = True
        self._buffer.clear()
        try:
            body = json.loads(payload) if payload else {}
        except (ValueError, RecursionError):
            return
        error = body.get("error") if isinstance(body, dict) else None
        self.error = error if isinstance(error, dict) else None


def _check_header(flags: int, length: int) -> None:
    if flags & ~(COMPRESSED | END_STREAM):
        raise _unreadable("the server's answer is not a stream of the sandbox service")
    if flags & COMPRESSED:
        raise _unreadable("the server sent a compressed message that nobody asked for")
    if length > MAX_FRAME_BYTES:
        raise _unreadable(f"the server announced a message of {length} bytes")


def _message(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise _unreadable("the server sent a message that is not JSON") from exc
    if not isinstance(message, dict):
        raise _unreadable("the server sent a message that is not a JSON object")
    return message


def _unreadable(message: str) -> AgentRunError:
    return AgentRunError(
        message,
        "internal_error",
        remediation="Check that nothing between client and server rewrites responses.",
        status=500,
    )
