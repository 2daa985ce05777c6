"""Room for the engine's own work, which a sandbox's memory limit does not foresee.

The limit counts the sandbox's kernel as well, and writing or reading a snapshot takes that kernel
about as much memory again as its objects have. The guest must not pay for that: where the work does
not fit under the limit, the limit is raised while it lasts, by what the work may take and the host
can spare, and lowered afterwards.

The guest stands still for most of the work. What it takes beside it, and what the work leaves
behind, can be over the limit when the work is done. The raised limit then follows what is used
down, and never up again, until it is where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor.image import Size
from mitos.host import memory
from mitos.host.cgroup import Hierarchy, Memory
from mitos.host.finish import finish

__all__ = ["Room", "to_checkpoint", "to_restore", "too_small"]

_MIB = 1 << 20

# What the work takes beside the objects, and how often as much as those: measured with 16,000
# closed connections, 40,000 files and hundreds of processes, and rounded up.
_WORK_BYTES = 64 * _MIB
_TIMES_IN_MEMORY = 4
_TIMES_IN_SNAPSHOT = 16

# What a sandbox over its limit may still take: less, and its kernel's next page could end it.
_SLACK_BYTES = 4 * _MIB
# What is left at least under the limit when it is set: what is used is counted in batches.
_LEAST_BYTES = _MIB

_FIRST_WAIT_S = 0.05
_LAST_WAIT_S = 2.0


def to_checkpoint(held: Memory) -> int:
    """Memory that a checkpoint may take a kernel, from what its sandbox holds."""
    return _WORK_BYTES + _TIMES_IN_MEMORY * held.private_bytes


def to_restore(size: Size) -> int:
    """Memory that a restore may take a kernel beside the guest's own."""
    return _WORK_BYTES + _TIMES_IN_SNAPSHOT * size.objects_bytes


def too_small(memory_mib: int) -> EngineError:
    """Makes the error of a sandbox that ended at its limit while it was filled."""
    return EngineError(
        f"the copy does not fit into its {memory_mib} MiB of memory",
        fault=EngineFault.NO_SPACE,
        remediation=(
            "Remove files or end programs in the sandbox, or wait a minute until its closed"
            " connections are forgotten. Templates with a larger mem_size_mib have more room."
        ),
    )


class Room:
    """The memory limit of one sandbox. Its owner must `close` it.

    Args:
        hierarchy: the host's control groups.
        group: the sandbox's.
        limit_bytes: the limit that it was made with.
        sleep: how it waits between two looks.
        available: memory that the host can spare.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        group: str,
        limit_bytes: int,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        available: Callable[[], int] = memory.available_bytes,
    ) -> None:
        self._hierarchy = hierarchy
        self._group = group
        self._limit = limit_bytes
        self._now = limit_bytes
        self._sleep = sleep
        self._available = available
        self._lowering: asyncio.Task[None] | None = None

    def fits(self, size_bytes: int) -> bool:
        """True when that much more fits under the sandbox's own limit.

        Raises:
            OSError: the sandbox is gone; likewise for `raised`.
        """
        return self._hierarchy.memory_bytes(self._group) + size_bytes <= self._limit

    @contextlib.asynccontextmanager
    async def raised(
        self,
        work_bytes: int,
        give_back: Callable[[], Awaitable[None]],
        *,
        content_bytes: int = 0,
    ) -> AsyncIterator[None]:
        """Has the limit raised for the time of the block.

        Args:
            work_bytes: what the work in the block may take.
            give_back: has the sandbox's kernel return what it does not need any more.
            content_bytes: what the guest will have more afterwards, under its limit.

        Raises:
            EngineError: `NO_SPACE` when the host cannot spare that much; nothing was changed.
        """
        available = self._available()
        if work_bytes > available:
            raise EngineError(
                f"a snapshot needs up to {work_bytes // _MIB} MiB beside the sandbox's own memory,"
                f" and this machine has {available // _MIB} MiB left",
                fault=EngineFault.NO_SPACE,
                remediation="End or hibernate other sandboxes, or remove files in this one.",
            )
        await self.close()
        used = self._hierarchy.memory_bytes(self._group)
        spare = self._limit - used - content_bytes
        try:
            await self._set(max(self._now, self._limit + work_bytes))
            yield
        finally:
            # A sandbox that ended has no limit any more.
            with contextlib.suppress(OSError):
                lowered = await self._lower(spare)
                # What the work left behind takes room from the guest also where it fits.
                with contextlib.suppress(EngineError):
                    await give_back()
                if not lowered and not await self._lower(spare):
                    self._lowering = asyncio.ensure_future(self._keep_lowering(spare))

    def lower_after(self, work: Callable[[], Awaitable[None]]) -> None:
        """Lowers a limit that an earlier process had raised, once its work is done.

        Args:
            work: waits for the end of what the kernel was ordered then.
        """
        with contextlib.suppress(OSError):
            self._now = max(self._hierarchy.memory_limit(self._group), self._limit)
        if self._now > self._limit:
            self._lowering = asyncio.ensure_future(self._lower_after(work))

    async def close(self) -> None:
        """Stops lowering the limit. Idempotent."""
        lowering, self._lowering = self._lowering, None
        if lowering is not None:
            lowering.cancel()
            await asyncio.gather(lowering, return_exceptions=True)

    async def _lower_after(self, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(EngineError):
            await work()
        await self._keep_lowering(0)

    async def _keep_lowering(self, spare: int) -> None:
        wait = _FIRST_WAIT_S
        with contextlib.suppress(OSError):
            while not await self._lower(spare):
                await self._sleep(wait)
                wait = min(2 * wait, _LAST_WAIT_S)

    async def _lower(self, spare: int) -> bool:
        """Lowers the limit as far as it goes; True when it is back where it belongs.

        Args:
            spare: what was left under it before the work.
        """
        used = self._hierarchy.memory_bytes(self._group)
        wanted = min(self._now, used + max(spare, _SLACK_BYTES))
        if used + max(min(spare, _SLACK_BYTES), _LEAST_BYTES) <= self._limit:
            wanted = self._limit
        if wanted < self._now:
            # Version 1 refuses a limit below what is used, which may have grown meanwhile.
            with contextlib.suppress(OSError):
                await self._set(wanted)
        return self._now == self._limit

    async def _set(self, limit_bytes: int) -> None:
        async def change() -> None:
            # The host's kernel first drops what it can of files, which takes its time.
            await asyncio.to_thread(self._hierarchy.set_memory_limit, self._group, limit_bytes)
            self._now = limit_bytes

        await finish(change())
