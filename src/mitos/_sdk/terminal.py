"""The messages of a terminal's WebSocket, in both dialects: messages in, values out. Pure.

Each message is one Connect frame in JSON: the client opens with the terminal's size, then sends
input and size changes; the server sends output, and the exit code last, in a frame with the end
flag. The older dialect (`/v1/pty`) has JSON texts instead, and its size in the address.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx

from mitos._sdk import failure
from mitos._sdk.framing import END_STREAM, FrameReader, decode_bytes, encode_bytes, encode_frame
from mitos.errors import AgentRunError

__all__ = [
    "CLOSE_TIMEOUT_S",
    "FALLBACK_STATUSES",
    "LEGACY_SUBPROTOCOL",
    "MAX_MESSAGE_BYTES",
    "NO_EXIT",
    "OPEN_TIMEOUT_S",
    "SUBPROTOCOL",
    "Session",
    "headers",
    "legacy_url",
    "lost",
    "refused",
]

SUBPROTOCOL = "connect.sandbox.v1"
LEGACY_SUBPROTOCOL = "mitos.pty.v1"
FALLBACK_STATUSES = (404, 405, 426)
"""Answers of a server that has no terminal at the current route; the older one is tried then."""

MAX_MESSAGE_BYTES = 16 << 20
NO_EXIT = -1

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0


class Session:
    """One terminal: makes messages, takes messages, and knows how it ended.

    Args:
        on_data: called with each piece of output.
        is_legacy: speak the older dialect.
        api_key: appears in no error.

    Attributes:
        has_ended: the server has said all it had to say.
        error: why the shell never ran, as the server said with its exit code; else None.
    """

    def __init__(
        self, on_data: Callable[[bytes], None], *, is_legacy: bool, api_key: str | None
    ) -> None:
        self._on_data = on_data
        self._is_legacy = is_legacy
        self.api_key = api_key
        self._exit_code: int | None = None
        self.has_ended = False
        self.error: AgentRunError | None = None

    @property
    def exit_code(self) -> int:
        """The shell's exit code; -1 while, or when, there is none."""
        return NO_EXIT if self._exit_code is None else self._exit_code

    def opening(self, cols: int, rows: int) -> bytes | None:
        """The first message, if the dialect has one."""
        if self._is_legacy:
            return None
        return encode_frame({"open": {"pty": {"size": {"cols": cols, "rows": rows}}}})

    def input(self, data: bytes) -> bytes | str:
        """Keystrokes as a message."""
        if self._is_legacy:
            return json.dumps({"kind": "input", "data": encode_bytes(data)})
        return encode_frame({"stdin": encode_bytes(data)})

    def resize(self, cols: int, rows: int) -> bytes | str:
        """A size as a message."""
        if self._is_legacy:
            return json.dumps({"kind": "resize", "cols": cols, "rows": rows})
        return encode_frame({"resize": {"cols": cols, "rows": rows}})

    def take(self, message: bytes | str) -> None:
        """Takes one message of the server.

        Raises:
            AgentRunError: it is not of the dialect, or the server ended the session with an error.
        """
        if self._is_legacy:
            self._take_text(message)
        elif isinstance(message, bytes) and message:
            self._take_frame(message)

    def _take_text(self, message: bytes | str) -> None:
        try:
            body = json.loads(message)
        except (ValueError, RecursionError) as exc:
            raise failure.malformed("a message") from exc
        if not isinstance(body, dict):
            return
        if body.get("kind") == "output":
            self._on_data(_decoded(body.get("data", "")))
        elif body.get("kind") == "exit":
            self._exit_code = _code(body.get("exit_code", 0))
            self.has_ended = True

    def _take_frame(self, message: bytes) -> None:
        is_last = bool(message[0] & END_STREAM)
        # The last frame carries the exit itself here, where Connect has its end object.
        for body in FrameReader().feed(bytes([message[0] & ~END_STREAM]) + message[1:]):
            self._take_body(body)
        if is_last:
            self.has_ended = True
            self._exit_code = 0 if self._exit_code is None else self._exit_code

    def _take_body(self, body: dict[str, Any]) -> None:
        for name in ("stdout", "stderr"):
            if name in body:
                self._on_data(_decoded(body[name]))
        if isinstance(body.get("error"), dict):
            raise failure.from_connect(body["error"], self.api_key)
        if "exit" in body:
            ended = body["exit"] if isinstance(body["exit"], dict) else {}
            self._exit_code = _code(ended.get("exitCode", ended.get("exit_code", 0)))
            if ended.get("error"):
                self.error = failure.exec_failed(ended["error"], self.api_key)


def _decoded(value: object) -> bytes:
    try:
        return decode_bytes(str(value))
    except ValueError as exc:
        raise failure.malformed("a message") from exc


def _code(value: object) -> int:
    try:
        return value if isinstance(value, int) else int(str(value))
    except ValueError as exc:
        raise failure.malformed("an exit code") from exc


def headers(token: str | None) -> dict[str, str]:
    """The handshake's own headers."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def legacy_url(url: str, cols: int, rows: int) -> str:
    """The older route's address for the same sandbox."""
    parts = urlsplit(url)
    sandbox = parse_qs(parts.query).get("sandbox", [""])[0]
    query = urlencode({"sandbox": sandbox, "cols": cols, "rows": rows})
    return urlunsplit((parts.scheme, parts.netloc, "/v1/pty", query, ""))


def refused(status: int, body: bytes | None, token: str | None) -> AgentRunError:
    """The error of a handshake that the server answered otherwise."""
    return failure.from_control_plane(status, body or b"", token)


def lost(exc: Exception, url: str, token: str | None) -> AgentRunError:
    """The error of a connection that could not be made, or broke."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    text = str(exc) or type(exc).__name__
    return failure.transport_failed(httpx.NetworkError(text), origin, token)
