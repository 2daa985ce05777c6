"""WebSockets for event loops, by the `websockets` package, which is imported when first used.

Redirects are not followed: they would carry the key to another origin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mitos._sdk import terminal
from mitos._sdk._loop.worker import Worker

__all__ = ["WebSocket", "translated"]


class WebSocket:
    """A connection.

    Args:
        connection: an open one of `websockets`.
        subprotocol: the one that is spoken on it; the connection's own when left out.
    """

    def __init__(self, connection: Any, subprotocol: str | None = None) -> None:
        self.connection = connection
        self.subprotocol = subprotocol or connection.subprotocol

    @classmethod
    async def dial(cls, url: str, token: str | None, subprotocol: str) -> WebSocket:
        """Opens a connection.

        Raises:
            ImportError: `websockets` is not installed.
            AgentRunError: the server refused it, which `status` says then, or was not reached.
        """
        with translated(url, token):
            from websockets.asyncio.client import connect  # noqa: PLC0415  an extra
            from websockets.typing import Subprotocol  # noqa: PLC0415

            attempt = connect(
                url,
                subprotocols=[Subprotocol(subprotocol)],
                additional_headers=terminal.headers(token),
                open_timeout=terminal.OPEN_TIMEOUT_S,
                max_size=terminal.MAX_MESSAGE_BYTES,
            )
            attempt.process_redirect = lambda exc: exc  # type: ignore[method-assign]
            return cls(await attempt, subprotocol)

    async def send(self, message: bytes | str) -> None:
        """Sends a message.

        Raises:
            websockets.ConnectionClosed: the connection is closed.
        """
        await self.connection.send(message)

    async def receive(self) -> bytes | str | None:
        """The next message; None once the other side has closed.

        Raises:
            websockets.ConnectionClosedError: the connection broke.
        """
        from websockets.exceptions import ConnectionClosedOK  # noqa: PLC0415  an extra

        try:
            message: bytes | str = await self.connection.recv()
        except ConnectionClosedOK:
            return None
        return message

    async def close(self) -> None:
        """Closes the connection; who reads it finds it closed."""
        self.connection.close_timeout = terminal.CLOSE_TIMEOUT_S
        await self.connection.close()

    async def hang_up(self, reader: Worker[None]) -> None:
        """Closes the connection, and waits until its reader has noticed."""
        await self.close()
        await reader.join()


@contextlib.contextmanager
def translated(url: str, token: str | None) -> Iterator[None]:
    """Errors of the connection come out as `AgentRunError`.

    Raises:
        ImportError: `websockets` is not installed.
    """
    try:
        from websockets.exceptions import InvalidStatus, WebSocketException  # noqa: PLC0415
    except ImportError as exc:
        raise ImportError(
            "asynchronous terminals need the websockets package: pip install 'mitos-run[async]'"
        ) from exc
    try:
        yield
    except InvalidStatus as exc:
        raise terminal.refused(exc.response.status_code, bytes(exc.response.body), token) from exc
    except (OSError, TimeoutError, WebSocketException) as exc:
        raise terminal.lost(exc, url, token) from exc
