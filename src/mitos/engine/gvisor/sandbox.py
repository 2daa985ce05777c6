"""One sandbox on the host, from birth to removal: processes, pipes, folder, control group.

`runsc create` leaves to init the sandbox, which is the guest's kernel, and where the root is a
folder also the gofer, which hands it that folder's files. We follow both by pidfd. The end of
either is the end of the machine: without its gofer a sandbox hangs at the next file it opens. An
image as root needs no gofer: the sandbox maps it. Everything a sandbox has on the host is named by
its id, so `purge` can remove it without knowing anything else, also after a crash:

    <state>/runsc/<id>_sandbox:<id>.{state,lock}, runsc-<id>.sock    the runtime's own
    <state>/machines/<id>/{config.json, in, out, root}               ours
    control group <parent>/<id>
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
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
from mitos.engine.gvisor import bundle, record
from mitos.engine.gvisor.control import Target, exit_signal
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.room import Room
from mitos.engine.gvisor.runsc import options_for
from mitos.engine.gvisor.users import User
from mitos.host import cgroup, process
from mitos.host.cgroup import Hierarchy, Memory
from mitos.host.control_socket import ControlSocket
from mitos.host.finish import finish
from mitos.host.pidfd import ProcessWatch
from mitos.host.pipe import PipeStream, make_pipe

__all__ = ["Sandbox", "purge"]

_REMOVE_TIMEOUT_S = 20.0
_RETRY_S = 0.005
_GOFER_GRACE_S = 1.0


class Sandbox:
    """A sandbox's presence on the host. The engine owns it and must `destroy` it."""

    def __init__(
        self,
        sandbox_id: str,
        spec: MachineSpec,
        place: Place,
        *,
        kernel: ProcessWatch,
        gofer: ProcessWatch | None,
        socket: Path,
        link: PipeStream,
        user: User | None,
    ) -> None:
        self.id = sandbox_id
        self.spec = spec
        self.link = link
        self.is_paused = False
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

    @classmethod
    async def create(cls, sandbox_id: str, spec: MachineSpec, place: Place) -> Sandbox:
        """Makes a sandbox whose kernel waits for its first order.

        Raises:
            EngineError: it could not be made; nothing of it is left.
        """
        user = None
        try:
            user = await place.user(spec.rootfs.kind)
            return await cls._create(sandbox_id, spec, place, user)
        except BaseException as exc:
            await finish(purge(sandbox_id, place))
            place.give_back(user)
            if isinstance(exc, process.CommandTimeoutError):
                raise EngineError(
                    f"making sandbox {sandbox_id} failed: {exc}", fault=EngineFault.TIMED_OUT
                ) from exc
            if isinstance(exc, (OSError, process.CommandError, ValueError)):
                raise EngineError(f"making sandbox {sandbox_id} failed: {exc}") from exc
            raise

    @classmethod
    async def _create(
        cls, sandbox_id: str, spec: MachineSpec, place: Place, user: User | None
    ) -> Sandbox:
        if not spec.rootfs.exists():
            raise FileNotFoundError(f"{spec.rootfs.path} is not a {spec.rootfs.kind.value}")
        if not spec.guest.is_dir():
            raise NotADirectoryError(f"{spec.guest} is not a folder")
        folder = place.folder(sandbox_id)
        empty = folder / "root"
        empty.mkdir(mode=0o700, parents=True)
        config = bundle.configure(spec, cgroup=place.cgroup(sandbox_id), empty=empty)
        (folder / "config.json").write_text(json.dumps(config))
        with contextlib.ExitStack() as stack:
            # Both pipes are held open at both ends until the sandbox holds them.
            guest_in = make_pipe(folder / "in")
            stack.callback(os.close, guest_in)
            guest_out = make_pipe(folder / "out")
            stack.callback(os.close, guest_out)
            argv = place.runsc.create(sandbox_id, options_for(spec.rootfs.kind), bundle=folder)
            await process.run(
                argv if user is None else user.namespace.entering(argv),
                timeout_s=place.settings.create_timeout_s,
                stdin=guest_in,
                stdout=guest_out,
            )
            link = PipeStream.open(source=folder / "out", sink=folder / "in")
        with contextlib.ExitStack() as undo:
            undo.callback(link.close_now)
            kernel_pid, gofer_pid, socket = record.read(place.runsc.root, sandbox_id)
            argument = f"--bundle={folder}"
            kernel = ProcessWatch.open(kernel_pid, argument=argument)
            undo.callback(kernel.close)
            gofer = ProcessWatch.open(gofer_pid, argument=argument) if gofer_pid else None
            undo.pop_all()
        return cls(
            sandbox_id,
            spec,
            place,
            kernel=kernel,
            gofer=gofer,
            socket=socket,
            link=link,
            user=user,
        )

    @property
    def is_running(self) -> bool:
        """True until its kernel has ended or its removal has begun."""
        return self._removal is None and not self._end.done()

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
        processes = [item for item in (self._kernel, self._gofer) if item is not None]
        for process_watch in processes:
            process_watch.kill()
        self.link.close_now()
        await self.room.close()
        if self._exit_reading is not None and self._exit_watch is not None:
            self._exit_reading.cancel()
            await asyncio.gather(self._exit_reading, return_exceptions=True)
            self._exit_watch.close()
        try:
            async with asyncio.timeout(_REMOVE_TIMEOUT_S):
                for process_watch in processes:
                    await process_watch.wait()
        except TimeoutError:
            raise EngineError(
                f"sandbox {self.id} did not end when killed", fault=EngineFault.TIMED_OUT
            ) from None
        for process_watch in processes:
            process_watch.close()
        await _remove_traces(self.id, self._place)
        _unlink(self.target.socket)
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


async def purge(sandbox_id: str, place: Place) -> None:
    """Removes all of a sandbox that nobody follows: half made, or of a crashed engine.

    Raises:
        EngineError: something could not be removed.
    """
    argument = f"--bundle={place.folder(sandbox_id)}"
    try:
        async with asyncio.timeout(_REMOVE_TIMEOUT_S):
            while (strays := _strays(argument)) != []:
                for pid in strays or ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise EngineError(f"processes of sandbox {sandbox_id} did not end when killed") from None
    with contextlib.suppress(OSError, ValueError):
        _unlink(record.read(place.runsc.root, sandbox_id)[2])
    await _remove_traces(sandbox_id, place)


def _strays(argument: str) -> list[int] | None:
    """The processes with the argument; None when no descriptor is left to look for them."""
    try:
        return process.find(argument)
    except OSError:
        return None


async def _remove_traces(sandbox_id: str, place: Place) -> None:
    group = place.cgroup(sandbox_id)
    try:
        await cgroup.kill_all(place.hierarchy, group, timeout_s=_REMOVE_TIMEOUT_S)
        await _remove_group(place.hierarchy, group)
        for name in (*record.files(sandbox_id), f"runsc-{sandbox_id}.sock"):
            _unlink(place.runsc.root / name)
        shutil.rmtree(place.folder(sandbox_id), ignore_errors=True)
    except (OSError, TimeoutError) as exc:
        raise EngineError(f"cannot remove what is left of sandbox {sandbox_id}: {exc}") from exc


async def _remove_group(hierarchy: Hierarchy, group: str) -> None:
    # The kernel lets go of a group a moment after its last process.
    async with asyncio.timeout(_REMOVE_TIMEOUT_S):
        while True:
            try:
                return hierarchy.remove(group)
            except OSError:
                await asyncio.sleep(_RETRY_S)


def _target(sandbox_id: str, spec: MachineSpec, place: Place, socket: Path) -> Target:
    moving_s = spec.resources.memory_mib / place.settings.transfer_mib_per_s
    return Target(
        id=sandbox_id,
        bundle=place.folder(sandbox_id),
        socket=socket,
        timeout_s=place.settings.order_timeout_s + moving_s,
        options=options_for(spec.rootfs.kind),
    )


def _unlink(path: Path) -> None:
    # The runtime falls back to names in the abstract namespace, which are no files.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
