"""A terminal's connection and who reads it: what both published handles in `pty.py` are made of.

`_sdk/terminal.py` has the messages. A server that only knows the older route, `/v1/pty`, is served
too.
"""

from __future__ import annotations

from collections.abc import Callable

from mitos._sdk import terminal
from mitos._sdk._loop.websocket import WebSocket, translated
from mitos._sdk._loop.worker import Worker
from mitos.errors import AgentRunError

__all__ = ["AsyncTerminal", "open_terminal"]


class AsyncTerminal:
    """A terminal that is connected, or could not be.

    A base class, because the constructors that are published for its two forms differ.
    """

    def __init__(self, socket: WebSocket, session: terminal.Session) -> None:
        self.error: Exception | None = None
        self._socket = socket
        self._session = session
        self._is_killed = False
        self._reader = Worker(self._read, "mitos-pty")

    async def send_input(self, data: bytes) -> None:
        r"""Types `data` into the terminal.

        Raises:
            websockets.ConnectionClosed: the session is over.

        Example:
            >>> terminal = await sb.pty(lambda data: None)
            >>> await terminal.send_input(b"exit\n")
        """
        await self._socket.send(self._session.input(data))

    async def resize(self, cols: int, rows: int) -> None:
        """Changes the terminal's size.

        Raises:
            websockets.ConnectionClosed: the session is over.

        Example:
            >>> terminal = await sb.pty(lambda data: None)
            >>> await terminal.resize(120, 40)
            >>> await terminal.kill()
        """
        await self._socket.send(self._session.resize(cols, rows))

    async def kill(self) -> None:
        """Closes the session; the server kills its processes. Idempotent.

        Example:
            >>> terminal = await sb.pty(lambda data: None)
            >>> await terminal.kill()
            >>> await terminal.wait()
            -1
        """
        self._is_killed = True
        await self._socket.hang_up(self._reader)

    async def wait(self, timeout: float | None = None) -> int:
        r"""Waits for the shell's exit code.

        Args:
            timeout: seconds; None waits as long as the session lives.

        Returns:
            The exit code; -1 if the session ended without one, or not in time.

        Example:
            >>> terminal = await sb.pty(lambda data: None)
            >>> await terminal.send_input(b"exit 7\n")
            >>> await terminal.wait(timeout=30)
            7
        """
        await self._reader.join(timeout)
        return self._session.exit_code

    async def _read(self) -> None:
        """Ends with the session; what broke it is in `error`, so that `wait` need not raise."""
        try:
            while not self._session.has_ended:
                message = await self._socket.receive()
                if message is None:
                    break
                self._session.take(message)
            self.error = self._session.error
        except Exception as exc:  # noqa: BLE001  the worker's edge; `on_data` may raise anything
            self.error = None if self._is_killed else exc
        finally:
            await self._socket.close()


async def open_terminal(
    url: str, token: str | None, on_data: Callable[[bytes], None], cols: int, rows: int
) -> tuple[WebSocket, terminal.Session]:
    """A connection, and the session that has begun on it.

    Raises:
        AgentRunError: the server refused, or could not be reached.
    """
    socket = await _dial(url, token, cols, rows)
    is_legacy = socket.subprotocol == terminal.LEGACY_SUBPROTOCOL
    session = terminal.Session(on_data, is_legacy=is_legacy, api_key=token)
    try:
        with translated(url, token):
            if opening := session.opening(cols, rows):
                await socket.send(opening)
    except BaseException:
        await socket.close()
        raise
    return socket, session


async def _dial(url: str, token: str | None, cols: int, rows: int) -> WebSocket:
    """A connection to the current route, or to the older one where that is all there is."""
    try:
        return await WebSocket.dial(url, token, terminal.SUBPROTOCOL)
    except AgentRunError as exc:
        if exc.status not in terminal.FALLBACK_STATUSES:
            raise
        refusal = exc
    try:
        legacy_url = terminal.legacy_url(url, cols, rows)
        return await WebSocket.dial(legacy_url, token, terminal.LEGACY_SUBPROTOCOL)
    except AgentRunError as exc:
        if exc.status is None:
            raise
        # What the current route said is the better answer: no such sandbox, say.
        raise refusal from refusal.__cause__
