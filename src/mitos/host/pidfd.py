"""A process that is not our child, followed by a descriptor so that its id cannot be mistaken.

A pidfd names one process for ever: signals never reach a later process with the same id, and the
descriptor becomes readable when the process ends. Sandboxes are started by a command that leaves
them to init, so this is how their end is noticed. `process` runs commands that are our children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

__all__ = ["ProcessWatch", "start_ticks"]

_START_TIME = 19
"""Where `starttime` stands behind the state."""

_STOPPED = "Tt"
"""Letters of proc(5): stopped by a signal, or by a debugger."""


def start_ticks(pid: int) -> int:
    """When a process began, in ticks since the host booted: no later one with its id has the same.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return int(_stat(pid)[_START_TIME])
    except FileNotFoundError as exc:
        raise ProcessLookupError(f"process {pid} is gone") from exc


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s `stat` from the state on: what stands before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class ProcessWatch:
    """Watches one process. Owned by whoever opened it, who must `close` it."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._loop.add_reader(descriptor, self._on_end)

    @classmethod
    def open(cls, pid: int, *, argument: str, started: int) -> ProcessWatch:
        """Starts to watch a process.

        Args:
            pid: its id.
            argument: a word of its command line, which shows that it is the one that is meant.
            started: its `start_ticks`, which shows that as well.

        Raises:
            ProcessLookupError: there is no such process, or it is another one.
        """
        descriptor = os.pidfd_open(pid)
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(argument) not in words or start_ticks(pid) != started:
                raise ProcessLookupError(f"process {pid} is another one than with {argument}")
            return cls(pid, descriptor)
        except FileNotFoundError as exc:
            os.close(descriptor)
            raise ProcessLookupError(f"process {pid} is gone") from exc
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def ended(self) -> bool:
        """True once its end was noticed."""
        return self._ended.is_set()

    @property
    def is_stopped(self) -> bool:
        """True while it is held, by us or by anybody else."""
        try:
            state = _stat(self.pid)[0]
        except OSError:  # it has ended, or there is no descriptor to look with
            return False
        return not self.ended and state in _STOPPED

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has `callback` called once, when the process has ended."""
        if self.ended:
            callback()
            return
        self._callbacks.append(callback)

    async def wait(self) -> None:
        """Waits until the process has ended."""
        await self._ended.wait()

    def kill(self) -> None:
        """Sends SIGKILL; does nothing when it has ended."""
        self._send(signal.SIGKILL)

    def hold(self) -> None:
        """Takes it off the CPU until `go_on`; does nothing when it has ended."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes `hold`; does nothing when it was not held."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Stops watching. Idempotent."""
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._reap()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._reap()
        self._ended.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _reap(self) -> None:
        # Where we are the init of a container or a subreaper, orphans are ours to collect.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
