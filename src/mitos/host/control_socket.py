"""Unix stream sockets that carry bytes and file descriptors, without blocking the loop."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ControlSocket"]

_READ_BYTES = 1 << 16


class ControlSocket:
    """A connection to a server on this machine. Whoever connected must `close` it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, path: Path) -> ControlSocket:
        """Connects to the server that listens at `path`, of any length.

        Raises:
            OSError: nobody listens there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        # An address holds 107 bytes; a folder's descriptor makes any path short enough.
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            address = f"/proc/self/fd/{folder}/{path.name}"
            await asyncio.get_running_loop().sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(folder)
        return cls(connection)

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Sends bytes; the descriptors travel with the first of them and stay the caller's.

        Raises:
            OSError: the server is gone.
        """
        sent = 0
        if descriptors:
            rights = array.array("i", descriptors)
            sent = self._connection.sendmsg(
                [data[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
        await self._loop.sock_sendall(self._connection, data[sent:])

    async def receive(self) -> bytes:
        """Waits for bytes; b"" once the server has closed the connection."""
        return await self._loop.sock_recv(self._connection, _READ_BYTES)

    def close(self) -> None:
        """Closes the connection. Idempotent."""
        self._connection.close()
