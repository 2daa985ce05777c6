"""Transfers that end in the middle: by their client, by their sandbox's user, or by a death.

Whoever ends one, at whatever moment: its caller gets a typed error within seconds, or the whole
result, and the server keeps no task, no connection and no descriptor of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

import mitos
from mitos._sdk._async.direct import AsyncDirectSandbox
from mitos._sdk._async.server import AsyncSandboxServer, create
from mitos.node.principal import LOCAL
from tests.server.at_rest import settled, wait_for_rest
from tests.server.serving import Server, serving

SIZE = 64 << 20
ERROR_S = 5.0
"""After the end of what the transfer was for."""

LONGEST_S = 0.5
"""The latest moment of an end."""

SMALL = {"mem_size_mib": 128}

Transfer = Callable[[AsyncDirectSandbox, Path], Awaitable[object]]


async def write(sb: AsyncDirectSandbox, _folder: Path) -> None:
    await sb.files.write("/workspace/f", bytes(SIZE))


async def upload(sb: AsyncDirectSandbox, _folder: Path) -> None:
    await sb.files.upload(io.BytesIO(bytes(SIZE)), "/workspace/f")


async def upload_dir(sb: AsyncDirectSandbox, folder: Path) -> None:
    await sb.files.upload_dir(folder / "tree", "/workspace/tree")


async def read(sb: AsyncDirectSandbox, _folder: Path) -> None:
    assert SIZE == len(await sb.files.read_bytes("/workspace/big"))


async def download(sb: AsyncDirectSandbox, _folder: Path) -> None:
    assert SIZE == await sb.files.download("/workspace/big", io.BytesIO())


async def download_dir(sb: AsyncDirectSandbox, folder: Path) -> None:
    await sb.files.download_dir("/workspace", folder / f"copy-{sb.id}")


async def output(sb: AsyncDirectSandbox, _folder: Path) -> None:
    await sb.exec("head -c 64000000 /dev/zero | tr '\\0' x", timeout=60)


async def upload_to_port(sb: AsyncDirectSandbox, _folder: Path) -> None:
    async with _asking(sb) as client:
        _check(await client.put("/f", content=bytes(SIZE)))


async def download_from_port(sb: AsyncDirectSandbox, _folder: Path) -> None:
    async with _asking(sb) as client:
        answer = await client.get("/big")
    _check(answer)
    assert SIZE == len(answer.content)


def _asking(sb: AsyncDirectSandbox) -> httpx.AsyncClient:
    """A client of the program that the sandbox serves."""
    base = f"{sb.endpoint}/v1/sandboxes/{sb.id}/expose/{PORT}"
    return httpx.AsyncClient(base_url=base, timeout=60)


def _check(answer: httpx.Response) -> None:
    """It is the program's, or says as text why there is none."""
    if answer.status_code == 502:
        raise mitos.AgentRunError(answer.text, "not_found")
    assert 200 == answer.status_code, answer.text


PORT = 8000
PROGRAM = f"""
import http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        while left and (data := self.rfile.read(min(left, 1 << 16))):
            left -= len(data)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""

TRANSFERS: tuple[Transfer, ...] = (
    *(write, upload, upload_dir, upload_to_port),
    *(read, download, download_dir, download_from_port, output),
)
ENDS = ("its client leaves", "its user ends it", "its processes die")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("own"), warm_per_template=0) as running:
        yield running


@pytest.fixture(scope="module")
def source(own: Server) -> str:
    """A sandbox with a large file, which it serves; each transfer has a fork of it."""
    sb = mitos.SandboxServer(own.url).connect(own.create())
    sb.exec(f"head -c {SIZE} /dev/urandom > /workspace/big")
    sb.files.write("/tmp/program.py", PROGRAM)
    sb.exec_background("cd /workspace && exec python3 /tmp/program.py")
    is_up = f"until curl -s -o /dev/null --head 127.0.0.1:{PORT}/; do sleep 0.05; done"
    sb.exec(is_up, timeout=30)
    return sb.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("local")
    (found / "tree").mkdir()
    for number in range(8):
        (found / "tree" / str(number)).write_bytes(os.urandom(SIZE // 8))
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("moments", [1, pytest.param(3, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("transfer", TRANSFERS, ids=lambda each: each.__name__)
def test_an_end_in_the_middle_is_told_at_once_and_nothing_is_left(
    own: Server, source: str, folder: Path, transfer: Transfer, end: str, moments: int
) -> None:
    dice = random.Random(f"{transfer.__name__} {end} {moments}")
    before = settled(own)
    for number in range(1, moments + 1):
        moment_s = dice.uniform(0, LONGEST_S * number / moments)
        asyncio.run(_end_at(own, source, folder, transfer, end, moment_s))
    wait_for_rest(own, before)


async def _end_at(
    own: Server, source: str, folder: Path, transfer: Transfer, end: str, moment_s: float
) -> None:
    source_sb = await AsyncSandboxServer(own.url).connect(source)
    (sb,) = await source_sb.fork(1)
    running = asyncio.create_task(transfer(sb, folder))
    await asyncio.sleep(moment_s)
    if end == "its client leaves":
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, mitos.AgentRunError, httpx.HTTPError):
            await running
        assert 0 == (await sb.exec("true")).exit_code
        await sb.terminate()
        return
    if end == "its user ends it":
        await sb.terminate()
    else:
        _kill(own, sb.id)
    ended = time.monotonic()
    # A program's answer that ends in the middle has no other way to be told.
    with contextlib.suppress(mitos.AgentRunError, httpx.RemoteProtocolError):
        await running
    assert time.monotonic() - ended < ERROR_S, f"{transfer.__name__}, {moment_s} s: {end}"


def _kill(own: Server, sandbox_id: str) -> None:
    """Ends the processes of a sandbox's engine, as the host's memory killer does."""
    machine = own.node._parts.registry.find(LOCAL.owner, sandbox_id).machine
    assert machine is not None
    os.kill(machine.sandbox._kernel.pid, signal.SIGKILL)  # type: ignore[attr-defined]


async def _stock_small_machines(own: Server) -> None:
    """The first of a size leaves what the next ones are made from."""
    sb = await create("python", base_url=own.url, resources=SMALL)
    await sb.terminate()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "transfer",
    [upload, *(pytest.param(each, marks=pytest.mark.matrix) for each in (write, upload_dir))],
    ids=lambda each: each.__name__,
)
def test_an_upload_that_uses_up_the_memory_says_so(
    own: Server, folder: Path, transfer: Transfer
) -> None:
    asyncio.run(_stock_small_machines(own))
    before = settled(own)

    async def fill() -> None:
        sb = await create("python", base_url=own.url, resources=SMALL)
        for number in range(4):
            await transfer(sb, folder)
            await sb.exec(f"mv /workspace /workspace-{number}; mkdir /workspace")

    with pytest.raises(mitos.AgentRunError, match="memory"):
        asyncio.run(fill())
    wait_for_rest(own, before)
