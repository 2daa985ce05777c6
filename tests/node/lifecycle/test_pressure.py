"""A host without memory: who grew ends, neighbours do not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mitos.engine.base import EngineError, Usage
from mitos.node.lifecycle.pressure import LOW_BYTES, Pressure

MIB = 1 << 20


class Host:
    """Memory and sandboxes; each look is a step."""

    def __init__(self, **grown_mib: tuple[int, int] | None) -> None:
        self.available = LOW_BYTES
        self.ended: list[str] = []
        self.sandboxes = {name: _sandbox(name, sizes) for name, sizes in grown_mib.items()}
        self._looks = asyncio.Semaphore(0)
        self._asleep = asyncio.Event()
        self.pressure = Pressure(
            self,  # type: ignore[arg-type]
            self._end,
            available=lambda: self.available,
            sleep=self._sleep,
        )
        self.pressure.start()

    def living(self) -> list[Any]:
        return list(self.sandboxes.values())

    async def look(self) -> None:
        """One look, and what comes of it."""
        await self._asleep.wait()
        self._asleep.clear()
        self._looks.release()
        await self._asleep.wait()

    async def _sleep(self, _seconds: float) -> None:
        self._asleep.set()
        await self._looks.acquire()

    async def _end(self, sandbox: Any) -> None:
        del self.sandboxes[sandbox.id]
        self.ended.append(sandbox.id)


def _sandbox(name: str, sizes: tuple[int, int] | None) -> Any:
    """Made with so many MiB, and with so many now; None: without a machine."""
    if sizes is None:
        return SimpleNamespace(id=name, running=None)
    made, now = sizes

    async def usage() -> Usage:
        if now < 0:
            raise EngineError("it is gone")
        return Usage(memory_bytes=now * MIB, cpu_seconds=0)

    machine = SimpleNamespace(usage=usage)
    running = SimpleNamespace(machine=machine, copied_bytes=made * MIB)
    return SimpleNamespace(id=name, running=running)


async def test_the_one_that_grew_ends_not_the_one_that_is_large() -> None:
    host = Host(large=(900, 910), greedy=(20, 300), idle=(20, 21), hibernated=None, gone=(20, -1))
    host.available = LOW_BYTES - 1

    await host.look()

    assert ["greedy"] == host.ended
    await host.pressure.close()


async def test_one_at_a_time_until_there_is_memory_again() -> None:
    host = Host(first=(0, 300), second=(0, 200), third=(0, 100))
    host.available = LOW_BYTES - 1
    await host.look()
    await host.look()  # the time an end takes to give memory back
    await host.look()
    host.available = LOW_BYTES
    await host.look()
    await host.look()

    assert ["first", "second"] == host.ended
    await host.pressure.close()


async def test_nobody_ends_while_there_is_memory() -> None:
    host = Host(greedy=(20, 300))

    for _ in range(5):
        await host.look()

    assert [] == host.ended
    await host.pressure.close()


async def test_nobody_ends_for_what_something_else_took(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(large=(900, 901), small=(20, 15), idle=(20, 25))
    host.available = LOW_BYTES - 1

    for _ in range(5):
        await host.look()

    assert [] == host.ended
    assert 1 == caplog.text.count("no sandbox has taken it")
    await host.pressure.close()
