"""Machines of the fake engine, with the node's own client of the link."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitos.engine.base import Machine, MachineSpec, Resources, Snapshot
from mitos.engine.fake import FakeEngine
from mitos.node import identity
from mitos.node.guest import CommandExit, ExecRequest, Guest
from mitos.node.link import Link
from mitos.wire.errors import ApiError
from mitos.wire.link import Channel, KernelEvent


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    stdout: str
    stderr: str
    exit: CommandExit


class Sandbox:
    """A machine with its link and a client of its agent."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.link = Link(machine.link)
        self.guest = Guest(self.link, _lost)

    async def exec(self, *argv: str, timeout_s: float = 10, **options: object) -> Ran:
        """Runs a program to its end."""
        request = ExecRequest(argv, timeout_s=timeout_s, **options)  # type: ignore[arg-type]
        said = {Channel.OUTPUT: b"", Channel.ERROR: b""}
        async with self.guest.exec(request) as command:
            async for piece in command:
                said[piece.channel] += piece.data
        assert command.exit is not None
        out, err = said[Channel.OUTPUT].decode(), said[Channel.ERROR].decode()
        return Ran(out, err, command.exit)

    async def sh(self, script: str, **options: object) -> Ran:
        """Runs a script to its end."""
        return await self.exec("/bin/sh", "-c", script, **options)  # type: ignore[arg-type]

    async def out(self, script: str) -> str:
        """What a script prints."""
        return (await self.sh(script)).stdout

    async def cell(self, code: str, timeout_s: float | None = 10) -> list[KernelEvent]:
        """Runs a cell to its end."""
        async with self.guest.run_code(code, timeout_s=timeout_s) as events:
            return [event async for event in events]

    async def identify(self) -> identity.Identity:
        """Gives a forked machine its identity."""
        fresh = identity.make_identity(self.machine.id, os.urandom)
        await self.guest.identify(fresh, forked=True, deadline_s=5)
        return fresh


async def _lost() -> ApiError:
    return ApiError("internal", "the machine ended")


class Bench:
    """Boots and forks; everything is closed after the test."""

    def __init__(self, engine: FakeEngine, folder: Path, stack: AsyncExitStack) -> None:
        self.engine = engine
        self.spec = MachineSpec(folder, folder, Resources(memory_mib=64), {"BOOTED": "yes"})
        self._folder = folder
        self._stack = stack
        self._numbers: Iterator[int] = itertools.count()

    def folder(self) -> Path:
        """A folder for a snapshot, not made yet."""
        return self._folder / str(next(self._numbers))

    async def boot(self) -> Sandbox:
        """A machine that has said hello."""
        sandbox = self.open(await self.engine.boot(self.spec))
        await sandbox.link.hello()
        return sandbox

    async def checkpoint(self, sandbox: Sandbox) -> Snapshot:
        """A snapshot as a node takes it."""
        async with sandbox.link.still(5):
            return await self.engine.checkpoint(sandbox.machine, self.folder())

    async def restore(self, snapshot: Snapshot) -> Sandbox:
        """A machine that is not identified yet."""
        blank = await self.engine.prepare(self.spec)
        return self.open(await self.engine.restore(blank, snapshot))

    async def fork(self, sandbox: Sandbox) -> Sandbox:
        """A child that knows who it is."""
        child = await self.restore(await self.checkpoint(sandbox))
        await child.identify()
        return child

    def open(self, machine: Machine) -> Sandbox:
        """A client of the machine."""
        sandbox = Sandbox(machine)
        self._stack.push_async_callback(sandbox.link.close)
        return sandbox


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    engine = FakeEngine()
    await engine.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        yield Bench(engine, tmp_path, stack)


@pytest.fixture
async def sandbox(bench: Bench) -> Sandbox:
    return await bench.boot()
