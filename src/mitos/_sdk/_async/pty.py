"""The published handle of a terminal, written by hand: `_sync/pty.py` has another constructor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitos._sdk._async.terminal import AsyncTerminal, open_terminal
from mitos._sdk._loop.websocket import WebSocket
from mitos._sdk.settings import checked_key
from mitos._sdk.terminal import LEGACY_SUBPROTOCOL, Session

__all__ = ["AsyncPtyHandle"]


class AsyncPtyHandle(AsyncTerminal):
    r"""A terminal, for use in an event loop. Needs the `websockets` package.

    Args:
        ws: an open connection.
        on_data: called with each piece of output, in the event loop.

    Attributes:
        error: why the shell never ran, what broke the connection, or what `on_data` raised; None
            while, or when, nothing of that happened. It is not raised: `wait` returns the exit
            code, or -1. Only `connect` itself raises.

    Example:
        >>> screen = []
        >>> terminal = await sb.pty(screen.append)
        >>> await terminal.send_input(b"exit 3\n")
        >>> await terminal.wait()
        3
    """

    def __init__(self, ws: Any, on_data: Callable[[bytes], None]) -> None:
        socket = WebSocket(ws)
        is_legacy = socket.subprotocol == LEGACY_SUBPROTOCOL
        super().__init__(socket, Session(on_data, is_legacy=is_legacy, api_key=None))
        self._reader.start()

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
            >>> screen = []
            >>> terminal = await AsyncPtyHandle.connect(sb.pty_url(), None, screen.append)
        """
        socket, session = await open_terminal(url, checked_key(token), on_data, cols, rows)
        handle = cls(socket.connection, on_data)
        handle._session = session
        return handle
