"""What a sandbox is ordered to do: over its release's control, with room for the work."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mitos.engine.base import EngineError, Snapshot
from mitos.engine.gvisor import image, room
from mitos.engine.gvisor.control import order_failed
from mitos.engine.gvisor.journal import Activity
from mitos.engine.gvisor.sandbox import Sandbox

__all__ = ["checkpoint", "fill", "keep", "set_paused", "start", "watch"]


def keep(sandbox: Sandbox) -> None:
    """Keeps a sandbox whose kernel waits to be filled, until somebody does so.

    Raises:
        EngineError: it is gone.
    """
    sandbox.stop_kernel()
    try:
        sandbox.note(Activity.BLANK)
    except OSError as exc:
        raise order_failed("prepare", sandbox.target, str(exc)) from exc


async def start(sandbox: Sandbox) -> None:
    """Starts PID 1 of a sandbox whose kernel waits.

    Raises:
        EngineError: it failed.
    """
    try:
        sandbox.note(Activity.RUNNING)
    except OSError as exc:
        raise order_failed("start", sandbox.target, str(exc)) from exc
    await sandbox.control.start(sandbox.target)


async def watch(sandbox: Sandbox) -> None:
    """Has its kernel tell when PID 1 ends.

    Preconditions: the kernel is not held. It would take this no more than any order, and what waits
    to be taken fills its socket in the end.

    Raises:
        EngineError: it has ended.
    """
    if not sandbox.is_watched:
        sandbox.expect_exit(await sandbox.control.watch_exit(sandbox.target))


async def checkpoint(sandbox: Sandbox, directory: Path) -> Snapshot:
    """Writes the sandbox's state into a folder; it goes on, or stays paused.

    Raises:
        EngineError: it failed; the folder is gone.
    """
    sandbox.continue_kernel()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _room(sandbox, lambda: _to_checkpoint(sandbox)):
            await sandbox.control.checkpoint(sandbox.target, directory, sandbox.memory())
        image.seal(directory, snapshot_format=sandbox.snapshot_format)
    except BaseException as exc:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(exc, OSError):
            raise order_failed("checkpoint", sandbox.target, str(exc)) from exc
        raise
    finally:
        if sandbox.is_paused:
            sandbox.stop_kernel()
    return Snapshot(directory, sandbox.spec)


async def fill(sandbox: Sandbox, directory: Path, size: image.Size) -> None:
    """Restores a snapshot into a sandbox whose kernel waits for it.

    Raises:
        EngineError: it failed; the sandbox is of no more use.
    """
    memory_mib = sandbox.spec.resources.memory_mib
    if size.pages_bytes > memory_mib << 20:
        raise room.too_small(memory_mib)
    try:
        sandbox.note(Activity.RUNNING)  # no blank any more, whatever becomes of it
        async with _room(sandbox, lambda: room.to_restore(size), size.pages_bytes):
            await sandbox.control.restore(sandbox.target, directory)
    except (EngineError, OSError) as exc:
        if sandbox.is_out_of_memory:
            raise room.too_small(memory_mib) from exc
        if isinstance(exc, OSError):
            raise order_failed("restore", sandbox.target, str(exc)) from exc
        raise


async def set_paused(sandbox: Sandbox, *, paused: bool) -> None:
    """Stops every process of a sandbox, or lets them go on. Idempotent.

    Raises:
        EngineError: it failed; the sandbox is taken to be as it was.
    """
    # The runtime counts pauses, and a resume too many ends the sandbox.
    if sandbox.is_paused == paused:
        return
    order = sandbox.control.pause if paused else sandbox.control.resume
    sandbox.continue_kernel()
    await watch(sandbox)
    try:
        sandbox.note(Activity.CHANGING)
        await order(sandbox.target)
        sandbox.is_paused = paused
        sandbox.note(Activity.PAUSED if paused else Activity.RUNNING)
    except OSError as exc:
        raise order_failed("pause" if paused else "resume", sandbox.target, str(exc)) from exc
    if paused:
        sandbox.stop_kernel()


def _to_checkpoint(sandbox: Sandbox) -> int:
    held = sandbox.memory()
    counted = held.shared_bytes if sandbox.control.charges_snapshots else 0
    return room.to_checkpoint(held) + counted


@contextlib.asynccontextmanager
async def _room(
    sandbox: Sandbox, work: Callable[[], int], content_bytes: int = 0
) -> AsyncIterator[None]:
    """Room for the kernel's work, beyond the sandbox's limit where it must be.

    Args:
        sandbox: whose kernel works.
        work: computes how much memory that takes.
        content_bytes: what the guest will have more afterwards.
    """
    give_back = functools.partial(sandbox.control.give_memory_back, sandbox.target)
    async with contextlib.AsyncExitStack() as stack:
        if not sandbox.room.fits(content_bytes + work()):
            await give_back()
        if not sandbox.room.fits(content_bytes + work()):
            raised = sandbox.room.raised(work(), give_back, content_bytes=content_bytes)
            await stack.enter_async_context(raised)
        yield
