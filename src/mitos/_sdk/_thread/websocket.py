"""WebSockets for threads, by the `websocket-client` package.

Redirects are not followed: they would carry the key to another origin.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import websocket

from mitos._sdk import terminal
from mitos._sdk._thread.worker import Worker

__all__ = ["WebSocket", "translated"]


class WebSocket:
    """A connection that one thread reads and all may write.

    Args:
        connection: an open one of `websocket-client`; None is one that never came about, on which
            everything sent fails.
        subprotocol: the one that is spoken on it.
        url: named in errors.
        token: appears in no error.
    """

    def __init__(
        self,
        connection: websocket.WebSocket | None,
        subprotocol: str = "",
        url: str = "",
        token: str | None = None,
    ) -> None:
        self.subprotocol = subprotocol
        self._connection = connection
        self._url, self._token = url, token
        self._write_lock = threading.Lock()

    @classmethod
    def dial(cls, url: str, token: str | None, subprotocol: str) -> WebSocket:
        """Opens a connection.

        Raises:
            AgentRunError: the server refused it, which `status` says then, or was not reached.
            ValueError: the address cannot be one of a WebSocket.
        """
        with translated(url, token):
            connection = websocket.create_connection(
                url,
                subprotocols=[subprotocol],
                header=terminal.headers(token),
                timeout=terminal.OPEN_TIMEOUT_S,
                redirect_limit=0,
            )
        connection.settimeout(None)
        return cls(connection, subprotocol, url, token)

    def send(self, message: bytes | str) -> None:
        """Sends a message.

        Raises:
            websocket.WebSocketConnectionClosedException: the connection is closed.
        """
        if self._connection is None:
            raise websocket.WebSocketConnectionClosedException("the terminal is not connected")
        with self._write_lock:
            if isinstance(message, str):
                self._connection.send(message)
            else:
                self._connection.send_binary(message)

    def receive(self) -> bytes | str | None:
        """The next message; None once the other side has closed.

        Raises:
            AgentRunError: the connection broke.
        """
        assert self._connection is not None
        with translated(self._url, self._token):
            kind, message = self._connection.recv_data()
        return None if kind == websocket.ABNF.OPCODE_CLOSE else message

    def close(self) -> None:
        """Closes the connection without a goodbye."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown()  # type: ignore[no-untyped-call]

    def hang_up(self, reader: Worker[None]) -> None:
        """Says goodbye, waits a moment for the answer, then closes; stuck threads come free."""
        if self._connection is None:
            return
        if self._write_lock.acquire(timeout=terminal.CLOSE_TIMEOUT_S):
            with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
                self._connection.send_close()
            self._write_lock.release()
        reader.join(terminal.CLOSE_TIMEOUT_S)
        with contextlib.suppress(OSError):
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        reader.release()


@contextlib.contextmanager
def translated(url: str, token: str | None) -> Iterator[None]:
    """Errors of the connection come out as `AgentRunError`."""
    try:
        yield
    except websocket.WebSocketBadStatusException as exc:
        raise terminal.refused(exc.status_code, exc.resp_body, token) from exc
    except (OSError, websocket.WebSocketException) as exc:
        raise terminal.lost(exc, url, token) from exc
