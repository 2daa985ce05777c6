"""The proxy against programs and destinations that misbehave, over pipes in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mitos.egress import proxy
from mitos.egress.policy import Address, DeniedError, Policy
from mitos.egress.proxy import Proxy
from mitos.wire.network import NetworkPosture

DEADLINE_S = 10


class MemoryPipe:
    """A program's connection: what it sends is put in, what it gets is kept."""

    def __init__(self, *sent: bytes, ends: bool = True) -> None:
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()
        for data in sent:
            self._sent.put_nowait(data)
        if ends:
            self._sent.put_nowait(b"")
        self.received = b""
        self.ended = asyncio.Event()

    def send(self, data: bytes) -> None:
        self._sent.put_nowait(data)

    async def read(self) -> bytes:
        return await self._sent.get()

    async def write(self, data: bytes) -> bool:
        self.received += data
        return True

    async def write_eof(self) -> None:
        self.ended.set()

    async def wait_closed(self) -> None:
        return


class TestPolicy(Policy):
    """Lets loopback through, where the destinations of these tests are; the names stay checked."""

    __test__ = False

    def check_address(self, address: Address, host: str | Address, port: int) -> None:
        if not address.is_loopback:
            super().check_address(address, host, port)


def everything() -> Proxy:
    return Proxy(TestPolicy(NetworkPosture(egress="allow")), "sb-1")


async def serve(wanted: Proxy, pipe: MemoryPipe) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        await wanted.serve(pipe)
    return pipe.received


@contextlib.asynccontextmanager
async def destination(handle: Any) -> AsyncIterator[int]:
    """A server on loopback; its port."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def connect(port: int, host: str = "127.0.0.1") -> bytes:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def socks(port: int, *, command: int = 1, kind: int = 1, address: bytes = b"\x7f\0\0\1") -> bytes:
    return b"\x05\x01\x00" + bytes([5, command, 0, kind]) + address + port.to_bytes(2, "big")


async def test_connect_carries_bytes_also_those_sent_early() -> None:
    async with destination(echo) as port:
        received = await serve(everything(), MemoryPipe(connect(port) + b"early ", b"late"))

    assert received == b"HTTP/1.1 200 Connection established\r\n\r\nearly late"


async def test_socks_carries_bytes_in_any_pieces() -> None:
    async with destination(echo) as port:
        pieces = [bytes([byte]) for byte in socks(port) + b"hi"]
        received = await serve(everything(), MemoryPipe(*pieces))

    assert received == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6) + b"hi"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://user:key@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:99999 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\nX: " + b"y" * 200_000,
        b"POST http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused(sent: bytes) -> None:
    pipe = MemoryPipe(sent)

    assert (await serve(everything(), pipe)).startswith(b"HTTP/1.1 400 ")
    assert pipe.ended.is_set()


@pytest.mark.parametrize("length", range(1, 10))
async def test_a_handshake_that_ends_early_ends_the_connection(length: int) -> None:
    received = await serve(everything(), MemoryPipe(socks(80)[:length]))

    assert received in (b"", b"\x05\x00")


async def test_socks_says_what_it_does_not_do() -> None:
    async def reply(sent: bytes) -> bytes:
        return await serve(everything(), MemoryPipe(sent))

    assert await reply(b"\x05\x01\x02") == b"\x05\xff"  # a password only
    assert (await reply(socks(80, command=2)))[2:4] == b"\x05\x07"
    assert (await reply(socks(80, kind=9)))[2:4] == b"\x05\x08"
    assert (await reply(socks(0)))[2:4] == b"\x05\x08"


async def test_a_program_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxy, "HEAD_DEADLINE_S", 0.1)

    for sent in ([], [b"C"], [b"\x05"], [b"\x05\x01\x00\x05"]):
        await serve(everything(), MemoryPipe(*sent, ends=False))


async def test_a_denial_names_the_remedy() -> None:
    wanted = Proxy(Policy(NetworkPosture(allow_domains=("example.org:443",))), "sb-1")
    http = await serve(wanted, MemoryPipe(connect(443, "example.com")))
    reply = await serve(wanted, MemoryPipe(socks(443)))

    assert http.startswith(b"HTTP/1.1 403 ")
    assert b"allow_domains" in http
    assert reply[2:4] == b"\x05\x02"
    assert wanted.denials == 2


async def test_a_destination_that_refuses_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    http = await serve(everything(), MemoryPipe(connect(port)))
    reply = await serve(everything(), MemoryPipe(socks(port)))

    assert http.startswith(b"HTTP/1.1 502 ")
    assert reply[2:4] == b"\x05\x04"


async def test_a_name_is_resolved_once_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first answers well and then with loopback does not get there."""
    answers = ["93.184.215.14", "127.0.0.1"]
    asked: list[str] = []

    async def resolve(name: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(name)
        return [(0, 0, 0, "", (answers[len(asked) - 1], 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    connected: list[str] = []

    async def open_connection(host: str, port: int) -> Any:
        connected.append(f"{host}:{port}")
        raise OSError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    wanted = Proxy(Policy(NetworkPosture(allow_domains=("rebound.test:80",))), "sb-1")
    first = await serve(wanted, MemoryPipe(connect(80, "rebound.test")))
    second = await serve(wanted, MemoryPipe(connect(80, "rebound.test")))

    assert asked == ["rebound.test"] * 2
    assert connected == ["93.184.215.14:80"], "only what was checked is connected to"
    assert first.startswith(b"HTTP/1.1 502 ")
    assert second.startswith(b"HTTP/1.1 403 ")


async def test_an_upload_without_an_answer_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "IDLE_DEADLINE_S", 0.3)

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(str(len(await reader.read(-1))).encode())
            await writer.drain()

    async with destination(count) as port:
        pipe = MemoryPipe(connect(port), ends=False)
        serving = asyncio.ensure_future(serve(everything(), pipe))
        for _ in range(10):
            await asyncio.sleep(0.1)
            pipe.send(b"x")
        pipe.send(b"")
        assert (await serving).endswith(b"\r\n10")


async def test_a_connection_where_nobody_speaks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "IDLE_DEADLINE_S", 0.2)

    async with destination(echo) as port:
        pipe = MemoryPipe(connect(port), ends=False)
        await serve(everything(), pipe)

    assert pipe.received.startswith(b"HTTP/1.1 200 ")


def test_the_policy_of_these_tests_differs_in_loopback_only() -> None:
    posture = NetworkPosture(egress="allow")
    metadata = ipaddress.ip_address("169.254.169.254")
    for policy in (Policy(posture), TestPolicy(posture)):
        with pytest.raises(DeniedError):
            policy.check_address(metadata, metadata, 80)


SPECIAL = [
    *("192.88.99.1", "fec0::1", "::ffff:0:808:808", "64:ff9b:1::1", "64:ff9b:2::1", "3fff::1"),
    *("5f00::1", "64:ff9b::7f00:1", "::ffff:127.0.0.1", "2002:7f00:1::", "2001:0:7f00:1::1"),
    *("ff02::1", "224.0.0.1", "100::1", "127.0.0.1", "::1"),
]


@pytest.mark.parametrize("text", SPECIAL)
async def test_no_protocol_leads_to_what_is_not_globally_reachable(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_args: object, **_options: object) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(asyncio, "open_connection", never)
    address = ipaddress.ip_address(text)
    host = f"[{text}]" if address.version == 6 else text
    kind = 4 if address.version == 6 else 1

    async def answer(sent: bytes) -> bytes:
        wanted = Proxy(Policy(NetworkPosture(egress="allow")), "sb-1")
        return await serve(wanted, MemoryPipe(sent))

    assert (await answer(connect(80, host))).startswith(b"HTTP/1.1 403 ")
    get = f"GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert (await answer(get)).startswith(b"HTTP/1.1 403 ")
    assert (await answer(socks(80, kind=kind, address=address.packed)))[3] == 2
    name = bytes([len(text)]) + text.encode()
    assert (await answer(socks(80, kind=3, address=name)))[3] == 2
