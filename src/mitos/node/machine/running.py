"""A machine that has proved who it is, from a snapshot: the fork handshake, fail closed.

A restored machine is served only after its agent confirmed a fresh identity (`agent/identity.py`).
Anything else destroys it and says so; whoever calls this gets a working machine or an error, never
something between.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mitos.agent.client import AgentClient
from mitos.agent.identity import Identity
from mitos.agent.link import Link
from mitos.engine.base import Blank, Engine, EngineError, Machine, MachineEnd, Snapshot
from mitos.wire.errors import ApiError

__all__ = ["RunningMachine", "destroy", "leave", "restore"]

_log = logging.getLogger(__name__)

# How long after its link a machine's end may be noticed.
_END_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class RunningMachine:
    """A machine that answers, and its link. Owned by whoever got it; `destroy` frees both.

    Attributes:
        machine: that runs.
        link: to its agent.
        copied_bytes: memory that it had when it was made.
    """

    machine: Machine
    link: Link
    copied_bytes: int = 0


async def destroy(engine: Engine, running: RunningMachine) -> None:
    """Ends the machine and frees its link. A failure is logged: there is nobody to tell."""
    await running.link.close()
    try:
        await engine.destroy(running.machine)
    except (EngineError, OSError) as exc:
        _log.error("machine %s could not be removed: %s", running.machine.id, exc)


async def leave(engine: Engine, running: RunningMachine) -> None:
    """Frees the link and lets go of the machine, which goes on. A failure is logged."""
    await running.link.close()
    try:
        await engine.leave(running.machine)
    except (EngineError, OSError) as exc:
        _log.error("machine %s could not be left: %s", running.machine.id, exc)


async def restore(
    engine: Engine,
    blank: Blank,
    snapshot: Snapshot,
    *,
    identity_of: Callable[[Machine], Identity],
    deadline_s: float,
) -> RunningMachine:
    """Restores the snapshot into the blank and gives the machine its identity.

    Args:
        engine: makes the machine.
        blank: consumed.
        snapshot: where the machine goes on from.
        identity_of: makes the machine's identity.
        deadline_s: how long it may take to confirm it.

    Raises:
        ApiError: the handshake failed; the machine is destroyed.
        EngineError: the engine could not restore; the blank is gone.
    """
    machine = await engine.restore(blank, snapshot)
    async with contextlib.AsyncExitStack() as undo:
        link = Link(machine.link, machine)
        running = RunningMachine(machine, link, snapshot.size_bytes())
        undo.push_async_callback(destroy, engine, running)
        agent = AgentClient(link, functools.partial(_lost_in_handshake, machine))
        await agent.identify(identity_of(machine), forked=True, deadline_s=deadline_s)
        undo.pop_all()
    return running


async def _lost_in_handshake(machine: Machine) -> ApiError:
    message = "the restored machine ended before it confirmed its identity"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_WAIT_S):
            if await machine.wait_end() is MachineEnd.OUT_OF_MEMORY:
                return ApiError(
                    "quota_exceeded",
                    message,
                    cause="it passed its memory limit",
                    remediation="Remove files or end programs in the sandbox that it is a copy of,"
                    " or use a template with a larger mem_size_mib.",
                )
    return ApiError("internal", message)
