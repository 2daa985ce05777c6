"""Orders over a control socket that a scripted sandbox answers, also with nonsense."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor.control import SocketControl, Target, exit_signal
from mitos.engine.gvisor.release import Traits
from mitos.host.cgroup import Memory
from tests.host.eventually import descriptors

_IDLE = Memory(shared_bytes=0, private_bytes=0)
_OK = b'{"success": true, "err": "", "result": {}}'


class Scripted:
    """A sandbox's socket: keeps every order, answers what it is told to."""

    def __init__(self, path: Path) -> None:
        self.orders: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.answer: Callable[[str], bytes | None] = lambda _: _OK
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(os.fspath(path))
        self._listening.listen()
        self._listening.setblocking(False)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    connection, _ = await loop.sock_accept(self._listening)
                    group.create_task(self._talk(connection))
            finally:
                self._listening.close()

    async def _talk(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            connection.setblocking(False)
            while True:
                try:
                    data, descriptors, _, _ = socket.recv_fds(connection, 1, 4)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            self.descriptors.extend(descriptors)
            data += await loop.sock_recv(connection, 1 << 16)
            order = json.loads(data)
            self.orders.append(order)
            answer = self.answer(order["method"])
            if answer is None:
                await asyncio.sleep(3600)
            else:
                for start in range(0, len(answer), 1 << 16):
                    await loop.sock_sendall(connection, answer[start : start + (1 << 16)])


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Scripted]:
    scripted = Scripted(tmp_path / "socket")
    serving = asyncio.ensure_future(scripted.serve())
    yield scripted
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for descriptor in scripted.descriptors:
        os.close(descriptor)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(id="mt-1", bundle=tmp_path, socket=tmp_path / "socket", timeout_s=2.0)


async def test_loopback_is_brought_up_before_the_start(sandbox: Scripted, target: Target) -> None:
    control = SocketControl(Traits())

    await control.connect_loopback(target)
    await control.start(target)

    network, start = sandbox.orders
    assert network["method"] == "Network.CreateLinksAndRoutes"
    assert network["arg"]["LoopbackLinks"][0]["Addresses"] == [
        {"Address": "127.0.0.1", "PrefixLen": 8},
        {"Address": "::1", "PrefixLen": 128},
    ]
    assert start == {"method": "containerManager.StartRoot", "arg": "mt-1"}


async def test_pause_and_resume(sandbox: Scripted, target: Target) -> None:
    control = SocketControl(Traits())

    await control.pause(target)
    await control.resume(target)

    methods = [order["method"] for order in sandbox.orders]
    assert methods == ["containerManager.Pause", "containerManager.Resume"]


async def test_checkpoint_passes_three_new_files(
    sandbox: Scripted, target: Target, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.mkdir()

    await SocketControl(Traits()).checkpoint(target, image, _IDLE)

    assert sandbox.orders[-1]["arg"]["Resume"] is True
    names = [Path(f"/proc/self/fd/{d}").readlink().name for d in sandbox.descriptors]
    assert names == ["checkpoint.img", "pages_meta.img", "pages.img"]


async def test_space_is_held_while_the_sandbox_writes_and_given_back(
    sandbox: Scripted, target: Target, tmp_path: Path
) -> None:
    image, held = tmp_path / "image", []
    image.mkdir()

    def answer(method: str) -> bytes:
        assert method == "containerManager.Checkpoint"
        held.append((image / "pages.img").stat().st_blocks * 512)
        (image / "pages.img").write_bytes(b"x" * 5000)
        return _OK

    sandbox.answer = answer
    await SocketControl(Traits()).checkpoint(target, image, Memory(3_000_000, 0))

    assert held[0] >= 3_000_000
    assert (image / "pages.img").stat().st_size == 5000
    assert (image / "pages.img").stat().st_blocks * 512 < 100_000


async def test_a_disk_without_room_fails_before_the_sandbox_is_stopped(
    sandbox: Scripted, target: Target, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    image.mkdir()

    with pytest.raises(EngineError) as caught:
        await SocketControl(Traits()).checkpoint(target, image, Memory(1 << 60, 0))

    assert caught.value.fault is EngineFault.NO_SPACE
    assert sandbox.orders == []


async def test_memory_is_asked_back_only_from_a_release_that_can(
    sandbox: Scripted, target: Target
) -> None:
    await SocketControl(Traits()).give_memory_back(target)
    assert sandbox.orders == []

    await SocketControl(Traits(has_own_calls=True)).give_memory_back(target)

    (order,) = sandbox.orders
    assert order["method"] == "containerManager.CreateTraceSession"
    assert order["arg"]["Config"]["sinks"] == [{"name": "mitos-reclaim"}]


async def test_our_build_forgets_closed_connections_from_the_start(
    sandbox: Scripted, target: Target
) -> None:
    await SocketControl(Traits(has_own_calls=True)).start(target)

    forget, start = sandbox.orders
    assert forget["arg"]["Config"]["sinks"] == [{"name": "mitos-timewait"}]
    assert forget["arg"]["Config"]["points"] == [{"name": "sentry/clone"}]
    assert start["method"] == "containerManager.StartRoot"


async def test_a_full_disk_reported_by_the_sandbox_is_no_space(
    sandbox: Scripted, target: Target
) -> None:
    sandbox.answer = lambda _: json.dumps(
        {"success": False, "err": "statefile error: no space left on device", "result": None}
    ).encode()

    with pytest.raises(EngineError, match="no space left") as caught:
        await SocketControl(Traits()).pause(target)

    assert caught.value.fault is EngineFault.NO_SPACE
    assert caught.value.remediation


async def test_a_reason_is_cut_to_its_first_line(sandbox: Scripted, target: Target) -> None:
    sandbox.answer = lambda _: json.dumps(
        {"success": False, "err": "broken:\ngoroutine 5 [running]:\n" + "x" * 9000}
    ).encode()

    with pytest.raises(EngineError) as caught:
        await SocketControl(Traits()).pause(target)

    assert str(caught.value) == "pause of sandbox mt-1 failed: broken:"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"success": 1}',
        b'{"success": "true"}',
        b"\xff\xfe{}",
        b'{"a": "}',
        b"[" * 100_000 + b"}",
    ],
)
async def test_a_reply_that_is_none_fails_the_order(
    sandbox: Scripted, target: Target, reply: bytes
) -> None:
    sandbox.answer = lambda _: reply

    with pytest.raises(EngineError):
        await SocketControl(Traits()).pause(target)


async def test_an_endless_reply_is_given_up(sandbox: Scripted, target: Target) -> None:
    sandbox.answer = lambda _: b'{"err": "' + b"x" * (4 << 20)

    with pytest.raises(EngineError, match="too long"):
        await SocketControl(Traits()).pause(target)


async def test_silence_is_given_up_at_the_deadline(sandbox: Scripted, target: Target) -> None:
    sandbox.answer = lambda _: None
    quick = Target(id="mt-1", bundle=target.bundle, socket=target.socket, timeout_s=0.1)

    with pytest.raises(EngineError) as caught:
        await SocketControl(Traits()).pause(quick)

    assert caught.value.fault is EngineFault.TIMED_OUT


async def test_a_sandbox_that_is_gone_fails_the_order(target: Target) -> None:
    before = descriptors()

    with pytest.raises(EngineError, match="No such file"):
        await SocketControl(Traits()).pause(target)
    with pytest.raises(EngineError, match="No such file"):
        await SocketControl(Traits()).restore(target, target.bundle)
    with pytest.raises(EngineError, match="No such file"):
        await SocketControl(Traits()).watch_exit(target)

    assert descriptors() - before == set()


async def test_the_end_of_pid_1_is_a_reply(sandbox: Scripted, target: Target) -> None:
    connection = await SocketControl(Traits()).watch_exit(target)

    assert connection is not None
    assert await asyncio.wait_for(connection.receive(), 2) == _OK
    assert sandbox.orders == [{"method": "containerManager.Wait", "arg": "mt-1"}]
    connection.close()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b'{"success":true,"err":"","result":0}', 0),
        (b'{"success":true,"err":"","result":256}', 0),
        (b'{"success":true,"err":"","result":11}', 11),
        (b'{"success":true,"err":"","result":137}', 9),
        (b'{"success":false,"err":"no such process","result":null}', None),
        (b'{"success":true,"err":"","result":"0"}', None),
        (b'{"success":true,"err":"","result":' + b"9" * 30 + b"}", int("9" * 30) % 128),
        (b"", None),
        (b"[]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_an_exit_is_told_from_an_end_without_a_word(reply: bytes, expected: int | None) -> None:
    assert exit_signal(reply) == expected
