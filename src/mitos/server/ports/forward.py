"""Ports of this machine that lead to ports inside sandboxes, for clients that speak plain TCP.

A listener is open on loopback only, and for as long as its sandbox lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict

from mitos.agent.tunnel import Tunnel
from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.node.state.event import Event, EventFeed, EventKind
from mitos.node.tenant import Tenant
from mitos.server.ports.slots import Slots
from mitos.server.tenant import Tenants
from mitos.wire.errors import ApiError

__all__ = ["Forwards"]

MAX_FORWARDS = 16
"""Listeners of one sandbox."""

MAX_CONNECTIONS = 64
"""To all listeners of one sandbox at the same time; more are closed at once."""

READ_BYTES = 64 * 1024


class Forwards:
    """The listeners of all sandboxes.

    Args:
        events: tell when a sandbox ends, or gives its id up.
        tenants: whose sandboxes they are.
    """

    def __init__(self, events: EventFeed, tenants: Tenants) -> None:
        self._tenants = tenants
        self._listeners: dict[str, list[asyncio.Server]] = defaultdict(list)
        self._connections: Slots[str] = Slots()
        events.listen(self._note)

    async def open(self, sandbox_id: str, port: int) -> str:
        """Opens a listener for a port inside; `host:port` where it listens.

        Raises:
            ApiError: `not_found`, `too_many_streams`.
        """
        tenant = self._tenants.current()
        tenant.agent(sandbox_id)
        sandbox = tenant.get_sandbox(sandbox_id)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            slot = self._connections.take(sandbox.uid, MAX_CONNECTIONS)
            with contextlib.closing(writer), slot as is_taken:
                if is_taken:
                    await _carry(tenant, sandbox_id, port, reader, writer)

        listener = await asyncio.start_server(carry, "127.0.0.1", 0)
        try:
            self._add(tenant.get_sandbox(sandbox_id), listener)
        except ApiError:
            listener.close()
            raise
        host, number = listener.sockets[0].getsockname()
        return f"{host}:{number}"

    def _add(self, sandbox: SandboxRecord, listener: asyncio.Server) -> None:
        listeners = self._listeners[sandbox.uid]
        if len(listeners) >= MAX_FORWARDS:
            raise ApiError(
                "too_many_streams",
                f"sandbox {sandbox.id} has {MAX_FORWARDS} forwarded ports already",
                remediation="Use one that is open, or the expose route.",
                context={"sandbox": sandbox.id},
            )
        listeners.append(listener)

    def _note(self, event: Event) -> None:
        if event.kind in (EventKind.ENDED, EventKind.RENAMED) and event.sandbox is not None:
            for listener in self._listeners.pop(event.sandbox.uid, ()):
                listener.close()


async def _carry(
    tenant: Tenant,
    sandbox_id: str,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Serves one accepted connection until either side ends it, or the port cannot be reached."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(ApiError, ConnectionError):
        async with tenant.agent(sandbox_id).dial(port) as tunnel:
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
