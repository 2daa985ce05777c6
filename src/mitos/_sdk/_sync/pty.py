"""The published handle of a terminal, written by hand: `_async/pty.py` has another constructor."""

from __future__ import annotations

from collections.abc import Callable

from mitos._sdk._sync.terminal import Terminal, open_terminal
from mitos._sdk._thread.websocket import WebSocket
from mitos._sdk.settings import checked_key
from mitos._sdk.terminal import Session
from mitos.errors import AgentRunError

__all__ = ["PtyHandle"]


class PtyHandle(Terminal):
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
        self._url = url
        key = checked_key(token)
        try:
            socket, session = open_terminal(url, key, on_data, cols, rows)
        except (AgentRunError, ValueError) as exc:
            super().__init__(WebSocket(None), Session(on_data, is_legacy=False, api_key=key))
            self.error = exc
        else:
            super().__init__(socket, session)
            self._reader.start()

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
        """The same as the constructor, named as in the asynchronous form.

        Example:
            >>> screen = []
            >>> terminal = PtyHandle.connect(sb.pty_url(), None, screen.append)
            >>> terminal.kill()
        """
        return cls(url, token, on_data, cols, rows)
