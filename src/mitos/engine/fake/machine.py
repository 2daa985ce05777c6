"""A machine of the fake engine: a guest, the task that serves it, and how it ended."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from mitos.engine.base import EngineError, MachineEnd, MachineSpec, Usage
from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.guest import Guest
from mitos.engine.fake.persist import SavedGuest
from mitos.engine.fake.pipe import PipeEnd, pipe

__all__ = ["FakeBlank", "FakeMachine", "cold_guest"]

_BASE_BYTES = 1 << 20
_VARIABLES = {"HOME": "/root", "PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "root"}


@dataclasses.dataclass(slots=True)
class FakeBlank:
    """A blank: only a name and a spec."""

    id: str
    spec: MachineSpec
    is_used: bool = False


class FakeMachine:
    """A running guest. Made inside the event loop; `end` is its only way out.

    Args:
        machine_id: unique.
        spec: what it is made of; of its root file system the fake takes nothing.
        saved: what the guest starts with; owned by the machine.
        is_restored: the guest was forked and waits for its identity.
    """

    def __init__(
        self, machine_id: str, spec: MachineSpec, saved: SavedGuest, *, is_restored: bool
    ) -> None:
        self.id = machine_id
        self.spec = spec
        self.link: PipeEnd
        self.link, guest_end = pipe()
        self.guest = Guest(saved, guest_end, is_restored=is_restored)
        self._began_at = time.monotonic()
        self._ended: asyncio.Future[MachineEnd] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(), name=machine_id)

    @property
    def is_running(self) -> bool:
        """True until it ended."""
        return not self._ended.done()

    async def wait_end(self) -> MachineEnd:
        """Waits for its end and says why."""
        return await asyncio.shield(self._ended)

    async def usage(self) -> Usage:
        """What its files take, and a share of the time it has lived."""
        self.require_running()
        memory_bytes = _BASE_BYTES + self.guest.files.size_bytes
        return Usage(memory_bytes, (time.monotonic() - self._began_at) / 100)

    async def end(self, why: MachineEnd) -> None:
        """Ends it for a reason, as a test may want; nothing of it runs afterwards. Idempotent."""
        if self.is_running:
            self._ended.set_result(why)
        await self.guest.stop()
        self._task.cancel()
        await asyncio.wait({self._task})

    def require_running(self) -> None:
        """Refuses orders to a machine that ended.

        Raises:
            EngineError: it ended.
        """
        if not self.is_running:
            raise EngineError(f"machine {self.id} has ended")

    async def _serve(self) -> None:
        try:
            await self.guest.run()
        finally:
            if self.is_running:
                self._ended.set_result(MachineEnd.EXITED)


def cold_guest(spec: MachineSpec) -> SavedGuest:
    """What a guest has when it is booted."""
    files = FileSystem(limit_bytes=spec.resources.memory_mib << 20)
    files.write("/etc/hostname", b"sandbox\n")
    return SavedGuest(files, {**_VARIABLES, **spec.environment}, b"", [])
