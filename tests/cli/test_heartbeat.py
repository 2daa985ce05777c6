"""What the service manager hears of a server, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.cli.heartbeat import beating
from mitos.host.service_manager import ServiceManager

WATCHDOG_S = 0.1
DEADLINE_S = 10


class Listening:
    def __init__(self, path: Path) -> None:
        self.manager = ServiceManager(address=str(path), watchdog_s=WATCHDOG_S)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    async def hear(self) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            heard = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
        return heard.decode().split("\n")

    async def hear_until(self, word: str) -> list[str]:
        while word not in (heard := await self.hear()):
            pass
        return heard

    def forget(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(4096)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    found = Listening(tmp_path / "notify")
    yield found
    found.socket.close()


async def test_a_server_that_starts_asks_for_more_time(listening: Listening) -> None:
    async with beating(listening.manager):
        for _ in range(3):
            assert ["EXTEND_TIMEOUT_USEC=60000000", "STATUS=starting"] == await listening.hear()


async def test_its_life_is_told(listening: Listening) -> None:
    count = 1
    async with beating(listening.manager) as heartbeat:
        heartbeat.ready(lambda: count)
        assert ["READY=1", "WATCHDOG=1", "STATUS=1 sandbox"] == await listening.hear_until(
            "READY=1"
        )
        count = 2
        assert ["WATCHDOG=1", "STATUS=2 sandboxes"] == await listening.hear_until(
            "STATUS=2 sandboxes"
        )
        heartbeat.stopping()
        assert ["STOPPING=1", "WATCHDOG=1", "STATUS=stopping"] == await listening.hear_until(
            "STOPPING=1"
        )
        assert ["WATCHDOG=1", "STATUS=stopping"] == await listening.hear()


async def test_a_loop_that_stands_still_gives_no_sign(listening: Listening) -> None:
    async with beating(listening.manager) as heartbeat:
        heartbeat.ready(lambda: 0)
        await listening.hear_until("READY=1")
        listening.forget()
        time.sleep(WATCHDOG_S * 3)  # noqa: ASYNC251  it stands still

        with pytest.raises(BlockingIOError):
            listening.socket.recv(4096)
        assert "WATCHDOG=1" in await listening.hear()


async def test_without_a_manager_nothing_is_said() -> None:
    async with beating(ServiceManager()) as heartbeat:
        heartbeat.ready(lambda: 0)
        heartbeat.stopping()
