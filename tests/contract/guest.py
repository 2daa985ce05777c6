"""A small client of the agent: enough to tell that a machine's state is where it must be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from mitos.agent import identity
from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.engine.base import Engine, Machine, Snapshot
from mitos.wire.errors import ApiError

__all__ = ["Client", "connected"]

_DEADLINE_S = 15.0


class Client:
    """Talks to one machine's agent."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.link = Link(machine.link, machine)
        self.agent = AgentClient(self.link, _lost)

    async def write(self, path: str, data: bytes) -> None:
        """Writes a file."""
        await self.agent.write_file(path, _once(data))

    async def read(self, path: str) -> bytes:
        """Reads a file."""
        return b"".join([chunk async for chunk in self.agent.read_file(path)])

    async def random_bytes(self) -> bytes:
        """The first bytes of `/dev/urandom`."""
        chunks = self.agent.read_file("/dev/urandom")
        async with contextlib.aclosing(chunks):
            return await anext(chunks)

    async def exists(self, path: str) -> bool:
        """True when there is something at the path."""
        try:
            await self.agent.stat(path)
        except ApiError as exc:
            if exc.code == "not_found":
                return False
            raise
        return True

    async def identify(self) -> None:
        """Makes a restored machine itself; its agent is frozen until then."""
        fresh = identity.make_identity(self.machine.id, os.urandom)
        await self.agent.identify(fresh, forked=True, deadline_s=_DEADLINE_S)

    async def checkpoint(self, engine: Engine, directory: Path) -> Snapshot:
        """Takes a snapshot at a frame boundary, as a node does."""
        async with self.link.frozen(_DEADLINE_S):
            return await engine.checkpoint(self.machine, directory)


@contextlib.asynccontextmanager
async def connected(machine: Machine, *, restored: bool = False) -> AsyncIterator[Client]:
    """A client of the machine for the time of the block."""
    client = Client(machine)
    try:
        if restored:
            await client.identify()
        else:
            await client.link.hello()
        yield client
    finally:
        await client.link.close()


async def _lost() -> ApiError:
    return ApiError("internal", "the machine ended")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
