"""From a snapshot to a machine that has proved who it is: the fork handshake, fail closed.

A restored machine is served only after its agent confirmed a fresh identity (`agent/identity.py`).
Anything else destroys it and says so; whoever calls this gets a working machine or an error, never
something between.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from mitos.agent.client import AgentClient
from mitos.agent.identity import Identity
from mitos.agent.link import Link
from mitos.engine.base import Blank, Engine, EngineError, EngineFault, Machine, Snapshot
from mitos.wire.errors import ApiError, ConnectCode

__all__ = ["Launched", "destroy", "restore", "translate"]

_log = logging.getLogger(__name__)

_CODE_OF_FAULT = {
    EngineFault.UNAVAILABLE: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.UNSUPPORTED: ("internal", ConnectCode.UNIMPLEMENTED),
    EngineFault.NO_SPACE: ("quota_exceeded", ConnectCode.RESOURCE_EXHAUSTED),
    EngineFault.TIMED_OUT: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.FAILED: ("internal", ConnectCode.INTERNAL),
}


def translate(error: EngineError, what: str) -> ApiError:
    """An engine's error as one of the catalogue."""
    code, connect = _CODE_OF_FAULT[error.fault]
    return ApiError(code, what, cause=str(error), remediation=error.remediation, connect=connect)


@dataclass(frozen=True, slots=True)
class Launched:
    """A machine that answers, and its link. Owned by whoever got it; `destroy` frees both."""

    machine: Machine
    link: Link


async def destroy(engine: Engine, launched: Launched) -> None:
    """Ends the machine and frees its link. A failure is logged: there is nobody to tell."""
    await launched.link.close()
    try:
        await engine.destroy(launched.machine)
    except EngineError as exc:
        _log.error("machine %s could not be removed: %s", launched.machine.id, exc)


async def restore(
    engine: Engine, blank: Blank, snapshot: Snapshot, *, identity: Identity, deadline_s: float
) -> Launched:
    """Restores the snapshot into the blank and gives the machine its identity.

    Raises:
        ApiError: the restore or the handshake failed; the machine is destroyed.
        EngineError: the engine could not restore; the blank is gone.
    """
    machine = await engine.restore(blank, snapshot)
    async with contextlib.AsyncExitStack() as undo:
        link = Link(machine.link)
        launched = Launched(machine, link)
        undo.push_async_callback(destroy, engine, launched)
        await AgentClient(link, _lost_in_handshake).identify(
            identity, forked=True, deadline_s=deadline_s
        )
        undo.pop_all()
    return launched


async def _lost_in_handshake() -> ApiError:
    return ApiError("internal", "the restored machine ended before it confirmed its identity")
