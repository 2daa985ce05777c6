"""What a sandbox is doing: its processes and their shares of CPU, and the sandbox as a whole.

Two sources, each for what only it knows. The agent reads the processes (`guest/vitals.c`). The
engine measures the memory and CPU of the whole sandbox on the host, where its limits are applied:
the guest's kernel is part of what counts there, and what it says of itself need not be true.
Shares of CPU are always the difference of two readings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from mitos.agent.client import AgentClient
from mitos.agent.process import ProcessReading
from mitos.engine.base import EngineError, Machine, Usage
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.wire.errors import ApiError

__all__ = ["ProcessInfo", "SandboxUsage", "Vitals", "measure", "read_processes", "watch"]

WINDOW_S = 0.1
"""How far apart the two readings of a share are; also how soon the first vitals come."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process of a sandbox.

    Attributes:
        command: the program's name; never its arguments.
        state: one letter: R S D Z T.
        cpu_percent: share of one CPU over the last 100 ms, so 200 for two busy threads.
        rss_bytes: resident memory.
    """

    pid: int
    ppid: int
    command: str
    state: str
    cpu_percent: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """A sandbox as a whole, measured on the host.

    Attributes:
        sampled_at_unix: seconds.
        cpu_percent: share of all its CPUs since the sample before, 0 to 100.
        steal_percent: share of all its CPUs that the host withheld since then, 0 to 100.
        memory_used_bytes: what counts against its limit, the guest's kernel included.
        memory_total_bytes: the limit.
        balloon_bytes: memory that the host took back from the guest.
        process_count: processes inside, the agent included.
    """

    sampled_at_unix: int
    cpu_percent: float
    steal_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    balloon_bytes: int
    process_count: int


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """What a sandbox costs the machine it runs on.

    Attributes:
        memory_bytes: resident memory, what it shares included.
        shared_bytes: the part of it that other sandboxes use as well.
        balloon_bytes: memory that the host took back from the guest.
        disk_bytes: disk that holds what it changed.
        steal_fraction: of the CPU time it could have had since it began, what the host withheld.
    """

    uid: str
    sandbox_id: str
    template_id: str
    memory_bytes: int
    memory_limit_bytes: int
    shared_bytes: int = 0
    balloon_bytes: int = 0
    disk_bytes: int = 0
    steal_fraction: float = 0.0

    @property
    def unique_bytes(self) -> int:
        """Memory that it alone uses."""
        return self.memory_bytes - self.shared_bytes


async def measure(sandbox: Sandbox) -> SandboxUsage | None:
    """What a sandbox costs now; None when it is hibernated or ended meanwhile."""
    if sandbox.running is None:
        return None
    machine = sandbox.running.machine
    try:
        usage = await machine.usage()
    except EngineError:
        return None
    wanted_s = usage.cpu_seconds + usage.steal_seconds
    return SandboxUsage(
        uid=sandbox.uid,
        sandbox_id=sandbox.id,
        template_id=sandbox.template_id,
        memory_bytes=usage.memory_bytes,
        memory_limit_bytes=machine.spec.resources.memory_mib << 20,
        shared_bytes=usage.shared_bytes,
        balloon_bytes=usage.balloon_bytes,
        disk_bytes=usage.disk_bytes,
        steal_fraction=usage.steal_seconds / wanted_s if wanted_s else 0.0,
    )


async def read_processes(agent: AgentClient) -> list[ProcessInfo]:
    """The processes of a sandbox, by id, after watching them for 100 ms.

    Raises:
        ApiError: the sandbox ended, or does not answer.
    """
    before = await agent.read_processes()
    await asyncio.sleep(WINDOW_S)
    return _shares(before, await agent.read_processes())


def _shares(before: ProcessReading, now: ProcessReading) -> list[ProcessInfo]:
    window_ns = max(1, now.clock_ns - before.clock_ns)
    earlier: Mapping[tuple[int, int], int] = {
        (entry.pid, entry.start_ticks): entry.cpu_ns for entry in before.entries
    }
    return [
        ProcessInfo(
            pid=entry.pid,
            ppid=entry.ppid,
            command=entry.name,
            state=entry.state,
            # One that is new did all its work within the window.
            cpu_percent=max(0, entry.cpu_ns - earlier.get((entry.pid, entry.start_ticks), 0))
            / window_ns
            * 100,
            rss_bytes=entry.resident_bytes,
        )
        for entry in sorted(now.entries, key=lambda entry: entry.pid)
    ]


async def watch(
    find_agent: Callable[[], AgentClient], machine: Machine, *, interval_s: float
) -> AsyncGenerator[Vitals]:
    """Yields the first sample after 100 ms, then one every `interval_s` seconds, without end.

    Args:
        find_agent: asked anew for each sample; raises once the sandbox is paused or has ended.
        machine: the sandbox's machine.
        interval_s: seconds between two samples.

    Raises:
        ApiError: what `find_agent` raises; or the sandbox ended, or does not answer.
    """
    before, read_at = await _usage(machine), time.monotonic()
    wait_s = WINDOW_S
    while True:
        await asyncio.sleep(wait_s)
        count = await find_agent().count_processes()
        now, at = await _usage(machine), time.monotonic()
        spec = machine.spec.resources
        possible_s = (at - read_at) * spec.vcpu_count
        total = spec.memory_mib << 20
        yield Vitals(
            sampled_at_unix=int(time.time()),
            cpu_percent=_percent(now.cpu_seconds - before.cpu_seconds, possible_s),
            steal_percent=_percent(now.steal_seconds - before.steal_seconds, possible_s),
            memory_used_bytes=min(now.memory_bytes, total),
            memory_total_bytes=total,
            balloon_bytes=now.balloon_bytes,
            process_count=count,
        )
        before, read_at, wait_s = now, at, interval_s


def _percent(part_s: float, whole_s: float) -> float:
    return min(100.0, max(0.0, part_s / whole_s * 100))


async def _usage(machine: Machine) -> Usage:
    try:
        return await machine.usage()
    except EngineError as exc:
        raise ApiError(
            "not_found",
            "the sandbox has ended",
            cause=str(exc),
            remediation="Create a new sandbox.",
        ) from exc
