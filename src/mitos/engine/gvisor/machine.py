"""What the engine hands out: machines, and blanks that can become one."""

from __future__ import annotations

from mitos.engine.base import ByteStream, HostProcess, MachineEnd, MachineSpec, Usage
from mitos.engine.gvisor.sandbox import Sandbox

__all__ = ["GvisorBlank", "GvisorMachine"]


class GvisorBlank:
    """A sandbox whose kernel waits to be filled."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.is_used = False

    @property
    def id(self) -> str:
        """Unique among the engine's sandboxes."""
        return self.sandbox.id

    @property
    def spec(self) -> MachineSpec:
        """What it is made of."""
        return self.sandbox.spec


class GvisorMachine:
    """A sandbox whose agent runs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    @property
    def id(self) -> str:
        """Unique among the engine's sandboxes."""
        return self.sandbox.id

    @property
    def spec(self) -> MachineSpec:
        """What it is made of."""
        return self.sandbox.spec

    @property
    def is_paused(self) -> bool:
        """True from `pause` to `resume`."""
        return self.sandbox.is_paused

    @property
    def snapshot_format(self) -> str:
        """Names what can read its snapshots."""
        return self.sandbox.snapshot_format

    @property
    def link(self) -> ByteStream:
        """The stream to the agent."""
        return self.sandbox.link

    async def wait_end(self) -> MachineEnd:
        """Waits until the machine no longer runs, and says why."""
        return await self.sandbox.wait_end()

    async def usage(self) -> Usage:
        """What it uses now.

        Raises:
            EngineError: it is gone.
        """
        return self.sandbox.usage()

    async def stopped(self) -> HostProcess | None:
        """The process on the host that somebody stopped, so that the machine cannot go on."""
        return self.sandbox.stopped
