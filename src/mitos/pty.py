"""Terminals of a sandbox, over a WebSocket.

Each message is one Connect frame in JSON (`_sdk/framing.py`): the client opens with the terminal's
size, then sends input and size changes; the server sends output, and the exit code last. A server
that only knows the older route, `/v1/pty` with text messages, is served too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import websocket

from mitos._sdk.framing import END_STREAM, FrameReader, decode_bytes, encode_bytes, encode_frame
from mitos.errors import AgentRunError, error_for_code

__all__ = ["AsyncPtyHandle", "PtyHandle"]

SUBPROTOCOL = "connect.sandbox.v1"
LEGACY_SUBPROTOCOL = "mitos.pty.v1"
OPEN_TIMEOUT_S = 10.0
NO_EXIT = -1
_FALLBACK_STATUSES = (404, 405, 426)


class _Session:
    """What both handles share: messages in either dialect, and the exit code. Pure."""

    def __init__(self, on_data: Callable[[bytes], None], *, is_legacy: bool) -> None:
        self._on_data = on_data
        self._is_legacy = is_legacy
        self.exit_code = NO_EXIT
        self.has_ended = False

    def opening(self, cols: int, rows: int) -> bytes | str | None:
        """The first message, if the dialect has one."""
        if self._is_legacy:
            return None
        return encode_frame({"open": {"pty": {"size": {"cols": cols, "rows": rows}}}})

    def input(self, data: bytes) -> bytes | str:
        """Keystrokes as a message."""
        if self._is_legacy:
            return json.dumps({"kind": "input", "data": base64.b64encode(data).decode()})
        return encode_frame({"stdin": encode_bytes(data)})

    def resize(self, cols: int, rows: int) -> bytes | str:
        """A size as a message."""
        if self._is_legacy:
            return json.dumps({"kind": "resize", "cols": cols, "rows": rows})
        return encode_frame({"resize": {"cols": cols, "rows": rows}})

    def take(self, message: bytes | str) -> None:
        """Takes one message of the server."""
        if isinstance(message, str):
            self._take_text(message)
        elif message:
            self._take_frame(message)

    def _take_text(self, message: str) -> None:
        body = json.loads(message)
        if body.get("kind") == "output":
            self._on_data(base64.b64decode(body["data"]))
        elif body.get("kind") == "exit":
            self.exit_code = int(body.get("exit_code", 0))
            self.has_ended = True

    def _take_frame(self, message: bytes) -> None:
        is_last = bool(message[0] & END_STREAM)
        # The last frame carries the exit itself here, where Connect has its end object.
        for body in FrameReader().feed(bytes([message[0] & ~END_STREAM]) + message[1:]):
            self._take_body(body)
        if is_last:
            self.exit_code = max(self.exit_code, 0) if self.exit_code == NO_EXIT else self.exit_code
            self.has_ended = True

    def _take_body(self, body: dict[str, Any]) -> None:
        for name in ("stdout", "stderr"):
            if name in body:
                self._on_data(decode_bytes(body[name]))
        if "exit" in body:
            ended = body["exit"] or {}
            self.exit_code = int(ended.get("exitCode", ended.get("exit_code", 0)))


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _legacy_url(url: str, cols: int, rows: int) -> str:
    parts = urlsplit(url)
    sandbox = parse_qs(parts.query).get("sandbox", [""])[0]
    query = urlencode({"sandbox": sandbox, "cols": cols, "rows": rows})
    return urlunsplit((parts.scheme, parts.netloc, "/v1/pty", query, ""))


class PtyHandle:
    """A terminal. Connects when it is made; output arrives on a thread of its own.

    Args:
        url: the terminal's WebSocket address.
        token: the server's key, or None.
        on_data: called with each piece of output, on the reader's thread.
        cols: width in characters.
        rows: height in characters.

    A connection that fails is not raised: `wait` then returns -1, and `error` says why.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        on_data: Callable[[bytes], None],
        cols: int = 80,
        rows: int = 24,
    ) -> None:
        self.error: AgentRunError | None = None
        self._done = threading.Event()
        self._write_lock = threading.Lock()
        self._session = _Session(on_data, is_legacy=False)
        self._socket: websocket.WebSocket | None = None
        try:
            self._connect(url, token, cols, rows, on_data)
        except (OSError, websocket.WebSocketException) as exc:
            self._fail(exc)
            return
        self._thread = threading.Thread(target=self._read, name="mitos-pty", daemon=True)
        self._thread.start()

    @classmethod
    def connect(
        cls,
        url: str,
        token: str | None,
        on_data: Callable[[bytes], None],
        cols: int = 80,
        rows: int = 24,
    ) -> PtyHandle:
        """The same as the constructor, named as the asynchronous form."""
        return cls(url, token, on_data, cols, rows)

    def send_input(self, data: bytes) -> None:
        """Types `data` into the terminal.

        Raises:
            websocket.WebSocketConnectionClosedException: the session is over.
        """
        self._send(self._session.input(data))

    def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size."""
        self._send(self._session.resize(cols, rows))

    def kill(self) -> None:
        """Closes the session; the server kills its processes."""
        if self._socket is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._socket.close(timeout=1)
        self._done.set()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the shell's exit code; -1 if the session ended without one, or not in time."""
        self._done.wait(timeout)
        return self._session.exit_code if self._session.has_ended else NO_EXIT

    def _connect(
        self,
        url: str,
        token: str | None,
        cols: int,
        rows: int,
        on_data: Callable[[bytes], None],
    ) -> None:
        options: dict[str, Any] = {"header": _headers(token), "timeout": OPEN_TIMEOUT_S}
        try:
            found = websocket.create_connection(url, subprotocols=[SUBPROTOCOL], **options)
        except websocket.WebSocketBadStatusException as exc:
            if exc.status_code not in _FALLBACK_STATUSES:
                raise
            legacy = _legacy_url(url, cols, rows)
            found = websocket.create_connection(
                legacy, subprotocols=[LEGACY_SUBPROTOCOL], **options
            )
            self._session = _Session(on_data, is_legacy=True)
        found.settimeout(None)
        self._socket = found
        opening = self._session.opening(cols, rows)
        if opening is not None:
            self._send(opening)

    def _send(self, message: bytes | str) -> None:
        if self._socket is None:
            raise websocket.WebSocketConnectionClosedException("the terminal is not connected")
        with self._write_lock:
            if isinstance(message, str):
                self._socket.send(message)
            else:
                self._socket.send_binary(message)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            while not self._session.has_ended:
                message = self._socket.recv()
                if not message:
                    break
                self._session.take(message)
        except (OSError, ValueError, websocket.WebSocketException) as exc:
            self._fail(exc)
        finally:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._socket.close(timeout=1)
            self._done.set()

    def _fail(self, exc: Exception) -> None:
        self.error = _failure(getattr(exc, "status_code", None), exc)
        self._done.set()


class AsyncPtyHandle:
    """A terminal, for use in an event loop. Needs the `websockets` package.

    Args:
        ws: an open connection.
        on_data: called with each piece of output, in the event loop.
    """

    def __init__(self, ws: Any, on_data: Callable[[bytes], None]) -> None:
        self._socket = ws
        self._session = _Session(on_data, is_legacy=ws.subprotocol == LEGACY_SUBPROTOCOL)
        self._reader = asyncio.create_task(self._read(), name="mitos-pty")

    @classmethod
    async def connect(
        cls,
        url: str,
        token: str | None,
        on_data: Callable[[bytes], None],
        cols: int = 80,
        rows: int = 24,
    ) -> AsyncPtyHandle:
        """Opens a terminal.

        Raises:
            ImportError: `websockets` is not installed.
            AgentRunError: the server refused, or could not be reached.
        """
        try:
            from websockets.asyncio.client import connect  # noqa: PLC0415  an extra
            from websockets.exceptions import InvalidStatus, WebSocketException  # noqa: PLC0415
            from websockets.typing import Subprotocol  # noqa: PLC0415
        except ImportError as exc:
            raise ImportError(
                "asynchronous terminals need the websockets package: pip install 'mitos-run[async]'"
            ) from exc
        options: dict[str, Any] = {
            "additional_headers": _headers(token),
            "open_timeout": OPEN_TIMEOUT_S,
            "max_size": None,
        }
        try:
            try:
                ws = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], **options)
            except InvalidStatus as exc:
                if exc.response.status_code not in _FALLBACK_STATUSES:
                    raise
                legacy = _legacy_url(url, cols, rows)
                dialect = Subprotocol(LEGACY_SUBPROTOCOL)
                ws = await connect(legacy, subprotocols=[dialect], **options)
        except (OSError, TimeoutError, WebSocketException) as exc:
            status = getattr(getattr(exc, "response", None), "status_code", None)
            raise _failure(status, exc) from exc
        handle = cls(ws, on_data)
        opening = handle._session.opening(cols, rows)
        if opening is not None:
            await ws.send(opening)
        return handle

    async def send_input(self, data: bytes) -> None:
        """Types `data` into the terminal."""
        await self._socket.send(self._session.input(data))

    async def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size."""
        await self._socket.send(self._session.resize(cols, rows))

    async def kill(self) -> None:
        """Closes the session; the server kills its processes."""
        await self._socket.close()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def wait(self) -> int:
        """Waits for the shell's exit code; -1 if the session ended without one."""
        await asyncio.gather(asyncio.shield(self._reader), return_exceptions=True)
        return self._session.exit_code if self._session.has_ended else NO_EXIT

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                self._session.take(message)
                if self._session.has_ended:
                    break
        finally:
            await self._socket.close()


def _failure(status: int | None, exc: Exception) -> AgentRunError:
    codes = {401: "unauthorized", 404: "not_found", 429: "too_many_streams"}
    return error_for_code(
        codes.get(status or 0, "connection_failed"),
        "the terminal could not be connected" if status else "the terminal's connection failed",
        cause=str(exc) or type(exc).__name__,
        remediation="Check that the server runs, the key is right and the sandbox exists.",
        status=status,
    )
