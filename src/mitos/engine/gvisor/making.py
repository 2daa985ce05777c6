"""How a sandbox comes to be followed: it is made, or an earlier process made it.

`runsc create` leaves to init the sandbox, which is the guest's kernel, and where the root is a
folder also the gofer, which hands it that folder's files. An image as root needs no gofer: the
sandbox maps it. The journal is written before anything is made, so that nothing is ever lost.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

from mitos.engine.base import EngineError, EngineFault, MachineEnd, MachineSpec
from mitos.engine.gvisor import bundle, journal, record
from mitos.engine.gvisor.journal import Entry, Process
from mitos.engine.gvisor.place import Place
from mitos.engine.gvisor.runsc import options_for
from mitos.engine.gvisor.sandbox import Sandbox
from mitos.engine.gvisor.traces import bundle_argument, purge
from mitos.engine.gvisor.users import User
from mitos.host import pidfd, process
from mitos.host.boot import boot_id
from mitos.host.finish import finish
from mitos.host.pidfd import ProcessWatch
from mitos.host.pipe import PipeStream, make_pipe

__all__ = ["adopt", "create", "end_of"]


async def create(
    sandbox_id: str, spec: MachineSpec, place: Place, *, snapshot_format: str
) -> Sandbox:
    """Makes a sandbox whose kernel waits for its first order.

    Raises:
        EngineError: it could not be made; nothing of it is left.
    """
    user = None
    try:
        user = await place.user(spec.rootfs.kind)
        entry = Entry(
            boot=boot_id(),
            format=snapshot_format,
            spec=journal.digest(spec),
            user=None if user is None else user.number,
        )
        return await _create(sandbox_id, spec, place, user, entry)
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


async def _create(
    sandbox_id: str, spec: MachineSpec, place: Place, user: User | None, entry: Entry
) -> Sandbox:
    if not spec.rootfs.exists():
        raise FileNotFoundError(f"{spec.rootfs.path} is not a {spec.rootfs.kind.value}")
    if not spec.guest.is_dir():
        raise NotADirectoryError(f"{spec.guest} is not a folder")
    folder = place.folder(sandbox_id)
    empty = folder / "root"
    empty.mkdir(mode=0o700, parents=True)
    journal.write(folder, entry)
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
            argv if user is None else user.entering(argv),
            timeout_s=place.settings.create_timeout_s,
            stdin=guest_in,
            stdout=guest_out,
        )
        link = PipeStream.open(source=folder / "out", sink=folder / "in")
    with contextlib.ExitStack() as undo:
        undo.callback(link.close_now)
        kernel_pid, gofer_pid, socket = record.read(place.runsc.root, sandbox_id)
        entry = replace(
            entry,
            kernel=_process(kernel_pid),
            gofer=_process(gofer_pid) if gofer_pid else None,
        )
        kernel, gofer = _watches(entry, folder, undo)
        journal.write(folder, entry)
        undo.pop_all()
    return Sandbox(
        sandbox_id,
        spec,
        place,
        entry,
        kernel=kernel,
        gofer=gofer,
        socket=socket,
        link=link,
        user=user,
    )


async def adopt(sandbox_id: str, spec: MachineSpec, place: Place) -> Sandbox | MachineEnd:
    """Follows a sandbox that an earlier process made, or says how it ended.

    Raises:
        EngineError: `UNAVAILABLE`, a later release made it; or it cannot be followed now.
    """
    folder = place.folder(sandbox_id)
    try:
        entry = journal.read(folder)
        if entry is None or entry.kernel is None:
            return MachineEnd.LOST
        if entry.boot != boot_id():
            return MachineEnd.HOST_RESTARTED
        activity = journal.read_activity(folder)
        with contextlib.ExitStack() as undo:
            kernel, gofer = _watches(entry, folder, undo)
            socket = record.read(place.runsc.root, sandbox_id)[2]
            link = PipeStream.open(source=folder / "out", sink=folder / "in")
            undo.pop_all()
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return end_of(sandbox_id, place)
    except OSError as exc:
        raise EngineError(f"sandbox {sandbox_id} cannot be followed: {exc}") from exc
    return Sandbox(
        sandbox_id,
        spec,
        place,
        entry,
        kernel=kernel,
        gofer=gofer,
        socket=socket,
        link=link,
        user=None if entry.user is None else User(entry.user),
        activity=activity,
    )


def end_of(sandbox_id: str, place: Place) -> MachineEnd:
    """How a sandbox ended that nobody followed, as far as its control group tells."""
    group = place.cgroup(sandbox_id)
    with contextlib.suppress(OSError):
        if place.hierarchy.oom_kills(group) > 0:
            return MachineEnd.OUT_OF_MEMORY
        if place.hierarchy.refused_tasks(group) > 0:
            return MachineEnd.PROCESS_LIMIT
    return MachineEnd.LOST


def _process(pid: int) -> Process:
    return Process(pid, pidfd.start_ticks(pid))


def _watches(
    entry: Entry, folder: Path, undo: contextlib.ExitStack
) -> tuple[ProcessWatch, ProcessWatch | None]:
    argument = bundle_argument(folder)

    def watch(found: Process) -> ProcessWatch:
        watched = ProcessWatch.open(found.pid, argument=argument, started=found.started)
        undo.callback(watched.close)
        return watched

    assert entry.kernel is not None
    kernel = watch(entry.kernel)
    return kernel, watch(entry.gofer) if entry.gofer is not None else None
