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

__all__ = ["Client", "connected", "token_of"]

_DEADLINE_S = 15.0


class Client:
    """Talks to one machine's agent.

    Args:
        machine: the machine; its link is the client's from now on.
        token: of the machine's agent, if an earlier client has had its link.
    """

    def __init__(self, machine: Machine, token: str | None = None) -> None:
        self.machine = machine
        self.link = Link(machine.link, machine, token=token)
        if token is not None:
            self.link.take_over()
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

    async def identify(self, *, forked: bool) -> None:
        """Makes the machine itself; the agent of a restored one is frozen until then."""
        token = token_of(self.machine.id)
        fresh = identity.make_identity(self.machine.id, os.urandom, token=token)
        await self.agent.identify(fresh, forked=forked, deadline_s=_DEADLINE_S)

    async def checkpoint(self, engine: Engine, directory: Path) -> Snapshot:
        """Takes a snapshot at a frame boundary, as a node does."""
        async with self.link.frozen(_DEADLINE_S):
            return await engine.checkpoint(self.machine, directory)


def token_of(machine_id: str) -> str:
    """What the agent of a machine is told, so that a later client may take its link over."""
    return f"token of {machine_id}"


@contextlib.asynccontextmanager
async def connected(
    machine: Machine, *, restored: bool = False, token: str | None = None
) -> AsyncIterator[Client]:
    """A client of the machine for the time of the block.

    Args:
        machine: the machine.
        restored: it was just restored, and nobody has made it itself.
        token: its agent's, if it was adopted.
    """
    client = Client(machine, token)
    try:
        if not restored:
            await client.link.hello()
        if token is None:
            await client.identify(forked=restored)
        yield client
    finally:
        await client.link.close()


async def _lost() -> ApiError:
    return ApiError("internal", "the machine ended")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
