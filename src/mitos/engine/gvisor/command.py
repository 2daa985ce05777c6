"""Orders to a running sandbox over the command line, for releases whose socket was not tested.

Slower than `control.SocketControl` by the start of a process each, and the memory of a snapshot on
tmpfs counts as the sandbox's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor.control import Target, order_failed
from mitos.engine.gvisor.runsc import Runsc
from mitos.host import process
from mitos.host.cgroup import Memory
from mitos.host.control_socket import ControlSocket

__all__ = ["CommandControl"]


class CommandControl:
    """Gives orders with one `runsc` command each."""

    charges_snapshots = True

    def __init__(self, runsc: Runsc) -> None:
        self._runsc = runsc

    async def connect_loopback(self, target: Target) -> None:
        """Does nothing: the commands that start and restore see to it."""

    async def start(self, target: Target) -> None:
        """Starts PID 1 of a created sandbox."""
        await _order("start", target, self._runsc.start(target.id, target.options))

    async def restore(self, target: Target, directory: Path) -> None:
        """Fills a created sandbox from the snapshot files in a folder."""
        argv = self._runsc.restore(target.id, target.options, bundle=target.bundle, image=directory)
        await _order("restore", target, argv)

    async def checkpoint(
        self,
        target: Target,
        directory: Path,
        held: Memory,  # noqa: ARG002
    ) -> None:
        """Writes snapshot files into an empty folder; the sandbox goes on as it was."""
        argv = self._runsc.checkpoint(target.id, target.options, image=directory)
        await _order("checkpoint", target, argv)

    async def give_memory_back(self, target: Target) -> None:
        """Does nothing: no command of the runtime's asks for it."""

    async def wait_done(self, target: Target) -> None:
        """Waits for as long as an order may take: no command asks for it."""
        await asyncio.sleep(target.timeout_s)

    async def pause(self, target: Target) -> None:
        """Stops every process."""
        await _order("pause", target, self._runsc.pause(target.id, target.options))

    async def resume(self, target: Target) -> None:
        """Undoes one `pause`."""
        await _order("resume", target, self._runsc.resume(target.id, target.options))

    async def watch_exit(self, target: Target) -> ControlSocket | None:  # noqa: ARG002
        """Cannot be told: an end that nobody asked for is then `LOST`."""
        return None


async def _order(name: str, target: Target, argv: list[str]) -> None:
    try:
        await process.run(argv, timeout_s=target.timeout_s)
    except process.CommandTimeoutError as exc:
        raise EngineError(
            f"{name} of sandbox {target.id} did not finish within {target.timeout_s:g} s",
            fault=EngineFault.TIMED_OUT,
        ) from exc
    except process.CommandError as exc:
        raise order_failed(name, target, str(exc)) from exc
