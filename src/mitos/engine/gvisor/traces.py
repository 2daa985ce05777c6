"""Removing what a sandbox has on the host, found by its id alone, also after a crash.

<state>/runsc/<id>_sandbox:<id>.{state,lock}, runsc-<id>.sock    the runtime's own
<state>/machines/<id>/{config.json, machine.json, pause, in, out, root}     ours
control group <parent>/<id>
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from mitos.engine.base import EngineError
from mitos.engine.gvisor import record
from mitos.engine.gvisor.place import Place
from mitos.host import cgroup, process
from mitos.host.cgroup import Hierarchy

__all__ = ["REMOVE_TIMEOUT_S", "bundle_argument", "purge", "remove"]

REMOVE_TIMEOUT_S = 20.0
_RETRY_S = 0.005


def bundle_argument(folder: Path) -> str:
    """The word of their command lines that all processes of a sandbox have, and no others."""
    return f"--bundle={folder}"


async def purge(sandbox_id: str, place: Place) -> None:
    """Removes all of a sandbox that nobody follows: half made, or of an earlier process.

    Raises:
        EngineError: something could not be removed.
    """
    argument = bundle_argument(place.folder(sandbox_id))
    try:
        async with asyncio.timeout(REMOVE_TIMEOUT_S):
            while (strays := _strays(argument)) != []:
                for pid in strays or ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise EngineError(f"processes of sandbox {sandbox_id} did not end when killed") from None
    socket = None
    with contextlib.suppress(OSError, ValueError):
        socket = record.read(place.runsc.root, sandbox_id)[2]
    await remove(sandbox_id, place, socket)


async def remove(sandbox_id: str, place: Place, socket: Path | None) -> None:
    """Removes what is left of a sandbox whose processes have ended.

    Raises:
        EngineError: something could not be removed.
    """
    group = place.cgroup(sandbox_id)
    try:
        await cgroup.kill_all(place.hierarchy, group, timeout_s=REMOVE_TIMEOUT_S)
        await _remove_group(place.hierarchy, group)
        for name in (*record.files(sandbox_id), f"runsc-{sandbox_id}.sock"):
            _unlink(place.runsc.root / name)
        if socket is not None:
            _unlink(socket)
        shutil.rmtree(place.folder(sandbox_id), ignore_errors=True)
    except (OSError, TimeoutError) as exc:
        raise EngineError(f"cannot remove what is left of sandbox {sandbox_id}: {exc}") from exc


def _strays(argument: str) -> list[int] | None:
    """The processes with the argument; None when no descriptor is left to look for them."""
    try:
        return process.find(argument)
    except OSError:
        return None


async def _remove_group(hierarchy: Hierarchy, group: str) -> None:
    # The kernel lets go of a group a moment after its last process.
    async with asyncio.timeout(REMOVE_TIMEOUT_S):
        while True:
            try:
                return hierarchy.remove(group)
            except OSError:
                await asyncio.sleep(_RETRY_S)


def _unlink(path: Path) -> None:
    # The runtime falls back to names in the abstract namespace, which are no files.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
