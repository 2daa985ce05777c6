"""One sandbox on the host while it is followed: its processes, its link, its end, its removal.

We follow the kernel and, where there is one, the gofer by pidfd. The end of either is the end of
the machine: without its gofer a sandbox hangs at the next file it opens. `making` begins to follow
one, `traces` says what it has on the host and removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

from mitos.engine.base import (
    EngineError,
    EngineFault,
    HostProcess,
    MachineEnd,
    MachineSpec,
    Usage,
)
from mitos.engine.gvisor import journal
from mitos.engine.gvisor.control import Target, exit_signal
from mitos.engine.gvisor.journal import Activity, Entry
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.room import Room
from mitos.engine.gvisor.runsc import options_for
from mitos.engine.gvisor.traces import REMOVE_TIMEOUT_S, remove
from mitos.engine.gvisor.users import User
from mitos.host.cgroup import Memory
from mitos.host.control_socket import ControlSocket
from mitos.host.pidfd import ProcessWatch
from mitos.host.pipe import PipeStream

__all__ = ["Sandbox"]

_GOFER_GRACE_S = 1.0


class Sandbox:
    """A sandbox's presence on the host. The engine owns it and must `destroy` it."""

    def __init__(
        self,
        sandbox_id: str,
        spec: MachineSpec,
        place: Place,
        entry: Entry,
        *,
        kernel: ProcessWatch,
        gofer: ProcessWatch | None,
        socket: Path,
        link: PipeStream,
        user: User | None,
        activity: Activity = Activity.MAKING,
    ) -> None:
        self.id = sandbox_id
        self.spec = spec
        self.snapshot_format = entry.format
        self.link = link
        self.is_paused = activity is Activity.PAUSED
        self.is_between = activity is Activity.CHANGING
        """Nobody knows whether it is paused: an earlier process was ordering it, and ended."""
        self.control = place.control_of(entry.format)
        self.target = _target(sandbox_id, spec, place, socket)
        limit_bytes = spec.resources.memory_mib << 20
        self.room = Room(place.hierarchy, place.cgroup(sandbox_id), limit_bytes)
        self._place = place
        self._kernel = kernel
        self._gofer = gofer
        self._user = user
        self._is_without_files = False
        self._exit_watch: ControlSocket | None = None
        self._exit_reply = b""
        self._exit_reading: asyncio.Task[None] | None = None
        self._removal: asyncio.Task[None] | None = None
        self._end: asyncio.Future[MachineEnd] = asyncio.get_running_loop().create_future()
        kernel.on_end(self._on_kernel_end)
        if gofer is not None:
            gofer.on_end(self._on_gofer_end)

    @property
    def is_running(self) -> bool:
        """True until its kernel has ended or its removal has begun."""
        return self._removal is None and not self._end.done()

    def note(self, activity: Activity) -> None:
        """Writes down what it does from now on.

        Raises:
            OSError: its folder is gone.
        """
        journal.write_activity(self._place.folder(self.id), activity)

    def expect_exit(self, watch: ControlSocket | None) -> None:
        """Takes over the connection on which the end of PID 1 is told."""
        if watch is not None:
            self._exit_watch = watch
            self._exit_reading = asyncio.ensure_future(self._read_exit(watch))

    async def wait_end(self) -> MachineEnd:
        """Waits for its end. Any number of callers."""
        return await asyncio.shield(self._end)

    def usage(self) -> Usage:
        """What it uses now.

        Raises:
            EngineError: it is gone.
        """
        group = self._place.cgroup(self.id)
        try:
            return Usage(
                memory_bytes=self._place.hierarchy.memory_bytes(group),
                cpu_seconds=self._place.hierarchy.cpu_seconds(group),
            )
        except OSError as exc:
            raise EngineError(f"sandbox {self.id} is gone: {exc}") from exc

    def memory(self) -> Memory:
        """What of its memory is what.

        Raises:
            EngineError: it is gone.
        """
        try:
            return self._place.hierarchy.memory(self._place.cgroup(self.id))
        except OSError as exc:
            raise EngineError(f"sandbox {self.id} is gone: {exc}") from exc

    @property
    def is_out_of_memory(self) -> bool:
        """True when the host's kernel ended a process of it at its memory limit."""
        with contextlib.suppress(OSError):
            return self._place.hierarchy.oom_kills(self._place.cgroup(self.id)) > 0
        return False

    @property
    def stopped(self) -> HostProcess | None:
        """The process of it that somebody else than us stopped."""
        if self.is_paused:
            return None
        if self._kernel.is_stopped:
            return HostProcess.KERNEL
        if self._gofer is not None and self._gofer.is_stopped:
            return HostProcess.FILES
        return None

    @property
    def is_held(self) -> bool:
        """True while its kernel takes no orders: `stop_kernel` was the last that was done to it."""
        return self._kernel.is_stopped

    @property
    def is_watched(self) -> bool:
        """True once its kernel was asked to tell the end of PID 1."""
        return self._exit_watch is not None

    def stop_kernel(self) -> None:
        """Takes its kernel off the CPU, of which one of an old release uses some when idle."""
        self._kernel.hold()

    def continue_kernel(self) -> None:
        """Undoes `stop_kernel`: from then on it takes orders again."""
        self._kernel.go_on()

    async def destroy(self) -> None:
        """Ends it and removes all of it. Idempotent; callers may overlap.

        Raises:
            EngineError: something could not be removed; the next call tries again.
        """
        if self._removal is not None and self._removal.done() and self._removal.exception():
            self._removal = None
        if self._removal is None:
            self._removal = asyncio.ensure_future(self._remove())
        await asyncio.shield(self._removal)

    async def let_go(self) -> None:
        """Stops following it; it goes on as it is. Idempotent."""
        await self._stop_listening()
        for process_watch in self._processes:
            process_watch.close()
        if self._user is not None:
            self._user.close()

    @property
    def _processes(self) -> list[ProcessWatch]:
        return [item for item in (self._kernel, self._gofer) if item is not None]

    async def _stop_listening(self) -> None:
        self.link.close_now()
        await self.room.close()
        if self._exit_reading is not None and self._exit_watch is not None:
            self._exit_reading.cancel()
            await asyncio.gather(self._exit_reading, return_exceptions=True)
            self._exit_watch.close()

    async def _read_exit(self, watch: ControlSocket) -> None:
        # Until we hang up, the kernel stays for a while, in case we had more to ask.
        with contextlib.suppress(OSError):
            self._exit_reply = await watch.receive()
        watch.close()
        # A kernel that loses its gofer gives up: it kills PID 1.
        is_killed = exit_signal(self._exit_reply) == signal.SIGKILL
        if is_killed and self._gofer is not None and self._gofer.ended:
            self._is_without_files = True

    async def _remove(self) -> None:
        processes = self._processes
        for process_watch in processes:
            process_watch.kill()
        await self._stop_listening()
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT_S):
                for process_watch in processes:
                    await process_watch.wait()
        except TimeoutError:
            raise EngineError(
                f"sandbox {self.id} did not end when killed", fault=EngineFault.TIMED_OUT
            ) from None
        for process_watch in processes:
            process_watch.close()
        await remove(self.id, self._place, self.target.socket)
        user, self._user = self._user, None
        self._place.give_back(user)

    def _on_gofer_end(self) -> None:
        # The two end together; the kernel still has to say why, if it can.
        asyncio.get_running_loop().call_later(_GOFER_GRACE_S, self._end_without_files)

    def _end_without_files(self) -> None:
        if not self._end.done():
            self._is_without_files = True
            self._kernel.kill()

    def _on_kernel_end(self) -> None:
        # What it said is in the socket, or on its way to us: the end of it comes behind.
        if self._exit_reading is None:
            self._settle()
        else:
            self._exit_reading.add_done_callback(lambda _: self._settle())

    def _settle(self) -> None:
        if not self._end.done():
            self._end.set_result(self._reason())

    def _reason(self) -> MachineEnd:
        if self._removal is not None:
            return MachineEnd.DESTROYED
        if self.is_out_of_memory:
            return MachineEnd.OUT_OF_MEMORY
        if self._is_without_files:
            return MachineEnd.FILES_LOST
        if exit_signal(self._exit_reply) is not None:
            return MachineEnd.EXITED
        with contextlib.suppress(OSError):
            if self._place.hierarchy.refused_tasks(self._place.cgroup(self.id)) > 0:
                return MachineEnd.PROCESS_LIMIT
        return MachineEnd.LOST


def _target(sandbox_id: str, spec: MachineSpec, place: Place, socket: Path) -> Target:
    moving_s = spec.resources.memory_mib / place.settings.transfer_mib_per_s
    return Target(
        id=sandbox_id,
        bundle=place.folder(sandbox_id),
        socket=socket,
        timeout_s=place.settings.order_timeout_s + moving_s,
        options=options_for(spec.rootfs.kind),
    )
