"""Many calls at once on twenty sandboxes, and a server that is killed in the middle."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import mitos
from mitos import aio
from mitos.errors import AgentRunError
from tests.integration.conftest import Server, serve

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SANDBOXES = 20


def connections(server: Server) -> int:
    """How many connections to the server are established; only this process has any."""
    port = urlsplit(server.url).port
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[2].partition(":")[2], 16) == port and row[3] == "01" for row in rows)


async def create(url: str, count: int) -> list[aio.AsyncDirectSandbox]:
    """Sandboxes, a few at a time."""
    slots = asyncio.Semaphore(4)

    async def one() -> aio.AsyncDirectSandbox:
        async with slots:
            return await aio.create("python", base_url=url, api_key="")

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def call(sandbox: aio.AsyncDirectSandbox, number: int) -> str:
    """One of three kinds of call; what it says."""
    if number % 3 == 0:
        return (await sandbox.exec(f"echo {number}", timeout=120)).stdout.strip()
    if number % 3 == 1:
        path = f"/tmp/{number}"
        await sandbox.files.write(path, str(number))
        return await sandbox.files.read(path)
    return str((await sandbox.run_code(str(number), timeout=120)).text)


@pytest.mark.parametrize("calls", [200, pytest.param(1000, marks=pytest.mark.soak)])
def test_calls_at_once(server: Server, calls: int) -> None:
    async def use() -> tuple[int, int]:
        sandboxes = await create(server.url, SANDBOXES)
        await asyncio.gather(*(call(each, number) for number, each in enumerate(sandboxes)))
        before = connections(server)
        found = await asyncio.gather(
            *(call(sandboxes[number % SANDBOXES], number) for number in range(calls))
        )
        assert found == [str(number) for number in range(calls)]
        await asyncio.sleep(0)
        after = connections(server)
        await asyncio.gather(*(each.terminate() for each in sandboxes))
        return before, after

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        before, after = asyncio.run(use())
        gc.collect()
    assert 0 < after <= before + 100, "connections are pooled, not one a call"
    mitos.close_http_pools()
    assert 0 == connections(server)


def test_a_server_that_is_killed_fails_every_call(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "home"
    own.mkdir()
    for name in ("bin", "rootfs"):
        (own / name).symlink_to((home / name).resolve())

    async def use(running: Server) -> list[Any]:
        sandboxes = await create(running.url, 4)
        calls = [
            asyncio.ensure_future(sandboxes[number % 4].exec("sleep 30", timeout=60))
            for number in range(40)
        ]
        for sandbox in sandboxes:  # the calls have begun
            while int((await sandbox.exec("pgrep -c sleep; true")).stdout) < 8:
                await asyncio.sleep(0.05)
        running.process.kill()
        async with asyncio.timeout(30):
            return list(await asyncio.gather(*calls, return_exceptions=True))

    with serve(own, tmp_path / "log", "--engine", "gvisor", "--prepare", "python") as running:
        found = asyncio.run(use(running))
    # The next server on the home ends what the killed one left.
    with serve(own, tmp_path / "log", "--engine", "gvisor"):
        pass

    assert len(found) == 40
    kinds = Counter(type(each).__name__ for each in found)
    assert all(isinstance(each, AgentRunError) for each in found), kinds
