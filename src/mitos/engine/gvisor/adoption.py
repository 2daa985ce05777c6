"""What an earlier process left: which sandboxes there are, and the removal of the unwanted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Collection

from mitos.engine.base import EngineError, MachineSpec
from mitos.engine.gvisor import journal
from mitos.engine.gvisor.journal import Activity
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.traces import bundle_argument, purge
from mitos.engine.gvisor.users import User
from mitos.host import process

__all__ = ["blanks", "end_commands", "left", "sweep"]

_log = logging.getLogger(__name__)

_PURGED_AT_ONCE = 8


def left(place: Place) -> frozenset[str]:
    """The ids of all sandboxes that an earlier process has left, also half made ones.

    Preconditions: this process has made none yet.
    """
    folders = (entry.name for entry in place.machines.iterdir())
    return frozenset({*folders, *place.hierarchy.children(place.group)})


def blanks(
    sandbox_ids: Collection[str], spec: MachineSpec, place: Place, *, snapshot_format: str
) -> list[str]:
    """Which of the sandboxes are blanks of a spec and a release."""
    wanted = journal.digest(spec)
    found = []
    for sandbox_id in sorted(sandbox_ids):
        folder = place.folder(sandbox_id)
        if journal.read_activity(folder) is Activity.BLANK:
            entry = journal.read(folder)
            if entry is not None and (entry.spec, entry.format) == (wanted, snapshot_format):
                found.append(sandbox_id)
    return found


def end_commands(place: Place) -> None:
    """Ends the runtime's commands of an earlier process: whoever ordered them is gone.

    Those that make a sandbox, and what they have made, name its bundle, and go with it.
    """
    bundles = os.fsencode(bundle_argument(place.machines))
    for pid in process.find(f"--root={place.runsc.root}"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if bundles not in process.command_line(pid):
                os.kill(pid, signal.SIGKILL)


async def sweep(strays: Collection[str], place: Place) -> None:
    """Removes sandboxes that nobody wants. A failure is logged: the next sweep tries again."""
    slots = asyncio.Semaphore(_PURGED_AT_ONCE)

    async def remove(sandbox_id: str) -> None:
        async with slots:
            entry = None
            with contextlib.suppress(EngineError, OSError):
                entry = journal.read(place.folder(sandbox_id))
            try:
                await purge(sandbox_id, place)
            except EngineError as exc:
                _log.error("%s", exc)
                return
            if entry is not None and entry.user is not None:
                place.give_back(User(entry.user))

    if strays:
        _log.info("removing %d machines that nobody wants", len(strays))
    await asyncio.gather(*map(remove, sorted(strays)))
