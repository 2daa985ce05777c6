"""Ports of this machine that lead to ports inside sandboxes, for clients that speak plain TCP.

A listener is open on loopback only, and for as long as its sandbox lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

from mitos.agent.tunnel import Tunnel
from mitos.node.node import Node
from mitos.wire.errors import ApiError

__all__ = ["Forwards"]

MAX_FORWARDS = 16
"""Listeners of one sandbox."""

READ_BYTES = 64 * 1024


class Forwards:
    """The listeners of a node's sandboxes.

    Args:
        node: runs the sandboxes; tells when one ends.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._listeners: dict[str, list[asyncio.Server]] = defaultdict(list)

    async def open(self, sandbox_id: str, port: int) -> str:
        """Opens a listener for a port inside; `host:port` where it listens.

        Raises:
            ApiError: `not_found`, `too_many_streams`, `invalid_input` for a port that is none.
        """
        if not 1 <= port <= 65_535:
            raise ApiError("invalid_input", "guest_port must be from 1 to 65535")
        self._node.agent(sandbox_id)
        listeners = self._listeners[sandbox_id]
        if len(listeners) >= MAX_FORWARDS:
            raise ApiError(
                "too_many_streams",
                f"sandbox {sandbox_id} has {MAX_FORWARDS} forwarded ports already",
                remediation="Use one that is open, or the expose route.",
                context={"sandbox": sandbox_id},
            )

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._carry(sandbox_id, port, reader, writer)

        if not listeners:
            self._node.on_end(sandbox_id, lambda: self._close(sandbox_id))
        listener = await asyncio.start_server(carry, "127.0.0.1", 0)
        listeners.append(listener)
        host, number = listener.sockets[0].getsockname()
        return f"{host}:{number}"

    def _close(self, sandbox_id: str) -> None:
        for listener in self._listeners.pop(sandbox_id, ()):
            listener.close()

    async def _carry(
        self,
        sandbox_id: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """One accepted connection; it is closed when the port cannot be reached."""
        with contextlib.closing(writer), contextlib.suppress(ApiError, ConnectionError):
            async with self._node.agent(sandbox_id).dial(port) as tunnel:
                feeder = asyncio.create_task(_feed(tunnel, reader), name="forward-in")
                try:
                    while data := await tunnel.read():
                        writer.write(data)
                        await writer.drain()
                finally:
                    feeder.cancel()
                    await asyncio.gather(feeder, return_exceptions=True)


async def _feed(tunnel: Tunnel, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(READ_BYTES):
        if not await tunnel.write(data):
            return
    await tunnel.write_eof()
