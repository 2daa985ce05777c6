"""Terminals of a sandbox, over a WebSocket; `_sdk/terminal.py` has the messages.

`PtyHandle` reads on a thread of its own, `AsyncPtyHandle` in a task of the running loop. A server
that only knows the older route, `/v1/pty`, is served too. Redirects are not followed: they would
carry the key to another origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import websocket

from mitos._sdk import terminal
from mitos._sdk.settings import checked_key
from mitos._sdk.terminal import Session

__all__ = ["AsyncPtyHandle", "PtyHandle"]

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0


class PtyHandle:
    r"""A terminal. Connects when it is made; output arrives on a thread of its own.

    Args:
        url: the terminal's WebSocket address.
        token: the server's key, or None.
        on_data: called with each piece of output, on the reader's thread.
        cols: width in characters.
        rows: height in characters.

    Attributes:
        error: why the shell never ran, why the connection failed or broke, or what `on_data`
            raised; None while, or when, nothing of that happened. It is not raised: `wait` returns
            the exit code, or -1.

    Example:
        >>> screen = []
        >>> terminal = sb.pty(screen.append)
        >>> terminal.send_input(b"exit 3\n")
        >>> terminal.wait()
        3
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        on_data: Callable[[bytes], None],
        cols: int = 80,
        rows: int = 24,
    ) -> None:
        self.error: Exception | None = None
        self._url, self._token = url, checked_key(token)
        self._done = threading.Event()
        self._write_lock = threading.Lock()
        self._session = Session(on_data, is_legacy=False, api_key=self._token)
        self._socket: websocket.WebSocket | None = None
        self._thread = threading.Thread(target=self._read, name="mitos-pty", daemon=True)
        try:
            self._socket = self._connect(on_data, cols, rows)
            if opening := self._session.opening(cols, rows):
                self._send(opening)
        except (OSError, ValueError, websocket.WebSocketException) as exc:
            if self._socket is not None:
                self._socket.shutdown()  # type: ignore[no-untyped-call]
            self._fail(exc)
            return
        self._thread.start()

    def __repr__(self) -> str:
        return f"PtyHandle({self._url!r})"

    @classmethod
    def connect(
        cls,
        url: str,
        token: str | None,
        on_data: Callable[[bytes], None],
        cols: int = 80,
        rows: int = 24,
    ) -> PtyHandle:
        """The same as the constructor, named as the asynchronous form.

        Example:
            >>> terminal = PtyHandle.connect(sb.pty_url(), None, print)
            >>> terminal.kill()
        """
        return cls(url, token, on_data, cols, rows)

    def send_input(self, data: bytes) -> None:
        r"""Types `data` into the terminal.

        Raises:
            websocket.WebSocketConnectionClosedException: the session is over.

        Example:
            >>> terminal = sb.pty(lambda data: None)
            >>> terminal.send_input(b"exit\n")
        """
        self._send(self._session.input(data))

    def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size.

        Raises:
            websocket.WebSocketConnectionClosedException: the session is over.

        Example:
            >>> terminal = sb.pty(lambda data: None)
            >>> terminal.resize(120, 40)
            >>> terminal.kill()
        """
        self._send(self._session.resize(cols, rows))

    def kill(self) -> None:
        """Closes the session; the server kills its processes. Idempotent.

        Example:
            >>> terminal = sb.pty(lambda data: None)
            >>> terminal.kill()
            >>> terminal.wait()
            -1
        """
        if self._socket is not None:
            self._hang_up(self._socket)
        self._done.set()

    def wait(self, timeout: float | None = None) -> int:
        r"""Waits for the shell's exit code.

        Args:
            timeout: seconds; None waits as long as the session lives.

        Returns:
            The exit code; -1 if the session ended without one, or not in time.

        Example:
            >>> terminal = sb.pty(lambda data: None)
            >>> terminal.send_input(b"exit 7\n")
            >>> terminal.wait(timeout=30)
            7
        """
        self._done.wait(timeout)
        return self._session.exit_code

    def _connect(
        self, on_data: Callable[[bytes], None], cols: int, rows: int
    ) -> websocket.WebSocket:
        options: dict[str, Any] = {
            "header": terminal.headers(self._token),
            "timeout": OPEN_TIMEOUT_S,
            "redirect_limit": 0,
        }
        try:
            found = websocket.create_connection(
                self._url, subprotocols=[terminal.SUBPROTOCOL], **options
            )
        except websocket.WebSocketBadStatusException as exc:
            if exc.status_code not in terminal.FALLBACK_STATUSES:
                raise
            legacy = terminal.legacy_url(self._url, cols, rows)
            try:
                found = websocket.create_connection(
                    legacy, subprotocols=[terminal.LEGACY_SUBPROTOCOL], **options
                )
            except websocket.WebSocketBadStatusException:
                # What the current route said is the better answer: no such sandbox, say.
                raise exc from None
            self._session = Session(on_data, is_legacy=True, api_key=self._token)
        found.settimeout(None)
        return found

    def _send(self, message: bytes | str) -> None:
        if self._socket is None:
            raise websocket.WebSocketConnectionClosedException("the terminal is not connected")
        with self._write_lock:
            if isinstance(message, str):
                self._socket.send(message)
            else:
                self._socket.send_binary(message)

    def _hang_up(self, connection: websocket.WebSocket) -> None:
        """Says goodbye, waits a moment for the answer, then closes; stuck threads come free."""
        if self._write_lock.acquire(timeout=CLOSE_TIMEOUT_S):
            with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
                connection.send_close()
            self._write_lock.release()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT_S)
        with contextlib.suppress(OSError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            while not self._session.has_ended:
                kind, message = self._socket.recv_data()
                if kind == websocket.ABNF.OPCODE_CLOSE:
                    break
                self._session.take(message)
            self.error = self._session.error
        except Exception as exc:  # noqa: BLE001  the thread's edge; `on_data` may raise anything
            if not self._done.is_set():
                self._fail(exc)
        finally:
            with contextlib.suppress(OSError):
                self._socket.shutdown()  # type: ignore[no-untyped-call]
            self._done.set()

    def _fail(self, exc: Exception) -> None:
        if isinstance(exc, websocket.WebSocketBadStatusException):
            self.error = terminal.refused(exc.status_code, exc.resp_body, self._token)
        elif isinstance(exc, (OSError, websocket.WebSocketException)):
            self.error = terminal.lost(exc, self._url, self._token)
        else:
            self.error = exc
        self._done.set()


class AsyncPtyHandle:
    r"""A terminal, for use in an event loop. Needs the `websockets` package.

    Args:
        ws: an open connection.
        on_data: called with each piece of output, in the event loop.

    Attributes:
        error: as that of `PtyHandle`; `connect` itself raises.

    Example:
        >>> terminal = await sb.pty(print)
        >>> await terminal.send_input(b"exit 3\n")
        >>> await terminal.wait()
        3
    """

    def __init__(self, ws: Any, on_data: Callable[[bytes], None]) -> None:
        self.error: Exception | None = None
        self._socket = ws
        is_legacy = ws.subprotocol == terminal.LEGACY_SUBPROTOCOL
        self._session = Session(on_data, is_legacy=is_legacy, api_key=None)
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

        Example:
            >>> terminal = await AsyncPtyHandle.connect(sb.pty_url(), None, print)
        """
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException  # noqa: PLC0415
        except ImportError as exc:
            raise ImportError(
                "asynchronous terminals need the websockets package: pip install 'mitos-run[async]'"
            ) from exc
        token = checked_key(token)
        try:
            ws = await _open(url, token, cols, rows)
            handle = cls(ws, on_data)
            handle._session.api_key = token
            try:
                if opening := handle._session.opening(cols, rows):
                    await ws.send(opening)
            except BaseException:
                await handle.kill()
                raise
        except InvalidStatus as exc:
            raise terminal.refused(
                exc.response.status_code, bytes(exc.response.body), token
            ) from exc
        except (OSError, TimeoutError, WebSocketException) as exc:
            raise terminal.lost(exc, url, token) from exc
        return handle

    async def send_input(self, data: bytes) -> None:
        r"""Types `data` into the terminal.

        Raises:
            websockets.ConnectionClosed: the session is over.

        Example:
            >>> await terminal.send_input(b"ls\n")
        """
        await self._socket.send(self._session.input(data))

    async def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size.

        Raises:
            websockets.ConnectionClosed: the session is over.

        Example:
            >>> await terminal.resize(120, 40)
        """
        await self._socket.send(self._session.resize(cols, rows))

    async def kill(self) -> None:
        """Closes the session; the server kills its processes. Idempotent.

        Example:
            >>> await terminal.kill()
        """
        self._socket.close_timeout = CLOSE_TIMEOUT_S
        await self._socket.close()
        await asyncio.wait([self._reader])

    async def wait(self) -> int:
        """Waits for the shell's exit code; -1 if the session ended without one.

        Example:
            >>> exit_code = await terminal.wait()
        """
        await asyncio.wait([self._reader])
        return self._session.exit_code

    async def _read(self) -> None:
        """Ends with the session; what broke it is in `error`, so that `wait` need not raise."""
        try:
            async for message in self._socket:
                self._session.take(message)
                if self._session.has_ended:
                    break
            self.error = self._session.error
        except Exception as exc:  # noqa: BLE001  the task's edge; `on_data` may raise anything
            self.error = exc
        finally:
            await self._socket.close()


async def _open(url: str, token: str | None, cols: int, rows: int) -> Any:
    """A connection to the current route, or to the older one where that is all there is."""
    from websockets.exceptions import InvalidStatus  # noqa: PLC0415  an extra

    try:
        return await _dial(url, token, terminal.SUBPROTOCOL)
    except InvalidStatus as exc:
        if exc.response.status_code not in terminal.FALLBACK_STATUSES:
            raise
        try:
            legacy = terminal.legacy_url(url, cols, rows)
            return await _dial(legacy, token, terminal.LEGACY_SUBPROTOCOL)
        except InvalidStatus:
            # What the current route said is the better answer: no such sandbox, say.
            raise exc from None


async def _dial(url: str, token: str | None, subprotocol: str) -> Any:
    from websockets.asyncio.client import connect  # noqa: PLC0415  an extra
    from websockets.typing import Subprotocol  # noqa: PLC0415

    attempt = connect(
        url,
        subprotocols=[Subprotocol(subprotocol)],
        additional_headers=terminal.headers(token),
        open_timeout=OPEN_TIMEOUT_S,
        max_size=terminal.MAX_MESSAGE_BYTES,
    )
    attempt.process_redirect = lambda exc: exc  # type: ignore[method-assign]
    return await attempt
