"""Tries an engine whose program is of a release that nobody has tested, before it is relied on.

A machine is booted, a file is written, the machine is snapshotted and restored, and a program is
run in the copy: what every fork needs. `mitos doctor` and a starting server do this.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from mitos.agent.client import AgentClient
from mitos.agent.command import ExecRequest
from mitos.agent.identity import Identity, make_identity
from mitos.agent.link import Link
from mitos.engine.base import Engine, EngineError, EngineFault, Machine, MachineSpec, Resources
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import guest
from mitos.node.machine.running import RunningMachine, destroy, restore
from mitos.wire.errors import ApiError

__all__ = ["try_out"]

_DEADLINE_S = 60.0
_ANSWER_S = 15.0
_AGENT = "/opt/mitos/agent"
_NOTE = "/workspace/note"
_WRITTEN = b"written before the snapshot"


async def try_out(engine: Engine) -> None:
    """Boots, snapshots, restores and runs something.

    Args:
        engine: started.

    Raises:
        EngineError: `UNAVAILABLE`, with the step that failed.
    """
    step = _Step()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await _try_out(engine, step)
    except (EngineError, ApiError, OSError, ValueError, TimeoutError) as exc:
        raise EngineError(
            f"{engine.snapshot_format} has not been tested with this version of Mitos, and does not"
            f" pass the trial: {step.name} failed: {exc or type(exc).__name__}",
            fault=EngineFault.UNAVAILABLE,
            remediation="`mitos doctor` says which program runs; use that of Mitos.",
        ) from exc


@dataclass(slots=True)
class _Step:
    """What is being tried, for the error."""

    name: str = "boot"


async def _try_out(engine: Engine, step: _Step) -> None:
    async with AsyncExitStack() as undo:
        top = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="mitos-trial-")))
        (top / "rootfs").mkdir()
        rootfs = RootFilesystem(RootKind.FOLDER, top / "rootfs")
        files = await asyncio.to_thread(guest.materialize, top / "guest")
        spec = MachineSpec(rootfs, files, Resources(memory_mib=256))

        machine = await engine.boot(spec)
        link = Link(machine.link, machine)
        undo.push_async_callback(destroy, engine, RunningMachine(machine, link))
        async with asyncio.timeout(_ANSWER_S):
            await link.hello()
        agent = AgentClient(link, functools.partial(_ended, machine.id))
        await agent.write_file(_NOTE, _once(_WRITTEN))

        step.name = "checkpoint"
        async with link.frozen(_ANSWER_S):
            snapshot = await engine.checkpoint(machine, top / "snapshot")

        step.name = "restore"
        blank = await engine.prepare(spec)
        copy = await restore(engine, blank, snapshot, identity_of=_identity, deadline_s=_ANSWER_S)
        undo.push_async_callback(destroy, engine, copy)
        agent = AgentClient(copy.link, functools.partial(_ended, copy.machine.id))
        if b"".join([chunk async for chunk in agent.read_file(_NOTE)]) != _WRITTEN:
            raise ValueError("the copy does not have the files of the snapshot")

        step.name = "exec"
        # The one program there is. Without a link it ends by itself.
        async with agent.exec(ExecRequest([_AGENT], timeout_s=_ANSWER_S)) as command:
            async for _ in command:
                pass
        if command.exit is None or command.exit.error:
            raise ValueError(command.exit.error if command.exit else "the program did not end")


def _identity(machine: Machine) -> Identity:
    return make_identity(machine.id, os.urandom)


async def _ended(machine_id: str) -> ApiError:
    return ApiError("internal", f"the machine {machine_id} ended")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
