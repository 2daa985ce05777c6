"""What one connection may take of a server, by clients that leave things undone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import h2.connection
import h2.events
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from mitos.server.http import deadline, http2, websocket
from mitos.server.http.connection import NewConnection
from mitos.server.http.traffic import Traffic
from tests.host.eventually import until

SMALL_BUFFER = 4096
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PING = b"\x89\xfd\0\0\0\0" + b"x" * 125


class Port:
    """A served port, and its clients."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        self.traffic = traffic
        self._number = number

    async def dial(self, data: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        """Connects and sends something; the socket does not block."""
        client = socket.socket()
        client.setblocking(False)
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self._number))
        await loop.sock_sendall(client, data)
        return client

    @property
    def unsent(self) -> int:
        """What the server holds for its clients."""
        state: ServerState = self.traffic.state
        transports = (getattr(each, "transport", None) for each in state.connections)
        return sum(each.get_write_buffer_size() for each in transports if each is not None)


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp, *, max_connections: int = 100, buffer: int | None = None
) -> AsyncIterator[Port]:
    """Serves an application; buffers of the kernel may be small."""
    listener = socket.create_server(("127.0.0.1", 0))
    if buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    traffic = Traffic(app, max_connections)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: NewConnection(traffic), sock=listener)
    try:
        yield Port(traffic, listener.getsockname()[1])
    finally:
        server.close()
        for connection in list(traffic.connections):
            connection.abort()
        await until(lambda: not traffic.connections and not traffic.state.tasks)


def answering(size: int) -> ASGIApp:
    """Answers every request with so many bytes."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    return app


class Collecting:
    """Keeps the messages of each request, from when it may go on."""

    def __init__(self) -> None:
        self.bodies: list[list[Message]] = []
        self.may_go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []
        self.bodies.append(messages)
        await self.may_go_on.wait()
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
        await answering(0)(scope, receive, send)


def client_of_http2() -> h2.connection.H2Connection:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    return client


HEADERS = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]


@pytest.mark.parametrize("request_", [GET.replace(b"Host", b"Connection: close\r\nHost"), GET])
async def test_a_client_that_leaves_the_end_of_an_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    monkeypatch.setattr(deadline, "WRITE_STALL_S", 0.2)
    async with serve(answering(60_000), buffer=SMALL_BUFFER) as port:
        with await port.dial(request_, buffer=SMALL_BUFFER):
            await until(lambda: port.unsent > 0)

            await until(lambda: not port.traffic.connections, timeout_s=20)


async def test_a_slow_client_gets_all_of_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "WRITE_STALL_S", 0.3)
    size, got = 60_000, bytearray()
    async with serve(answering(size), buffer=SMALL_BUFFER) as port:
        with await port.dial(GET, buffer=SMALL_BUFFER) as client:
            while len(got) < size:
                await asyncio.sleep(0.05)
                got += await asyncio.get_running_loop().sock_recv(client, 2000)


@pytest.mark.parametrize(
    "first", [b"", b"G", GET, client_of_http2().data_to_send()], ids=["-", "G", "GET", "HTTP/2"]
)
async def test_who_waits_gives_way_and_there_are_never_too_many(first: bytes) -> None:
    async with serve(answering(5), max_connections=3) as port:
        with contextlib.ExitStack() as open_:
            for _ in range(12):
                open_.enter_context(await port.dial(first))
                await asyncio.sleep(0.01)
            last = open_.enter_context(await port.dial(GET))

            async with asyncio.timeout(10):
                answer = await asyncio.get_running_loop().sock_recv(last, 1000)
            assert answer.startswith(b"HTTP/1.1 200")
            assert len(port.traffic.connections) <= 3


async def test_a_body_in_many_frames_is_kept_as_bytes() -> None:
    app, client = Collecting(), client_of_http2()
    client.send_headers(1, HEADERS)
    for _ in range(2000):
        client.send_data(1, b"x")
        client.send_data(1, b"")
    client.send_data(1, b"", end_stream=True)
    async with serve(app) as port:
        with await port.dial(client.data_to_send()):
            await until(lambda: len(app.bodies) == 1)
            await asyncio.sleep(0.1)
            app.may_go_on.set()
            await until(lambda: not port.traffic.state.tasks)

    assert b"x" * 2000 == b"".join(each["body"] for each in app.bodies[0])
    assert len(app.bodies[0]) <= 3


async def test_padding_alone_does_not_use_up_the_window() -> None:
    app, client = Collecting(), client_of_http2()
    app.may_go_on.set()
    client.send_headers(1, HEADERS)
    async with serve(app) as port:
        with await port.dial(client.data_to_send()) as peer:
            loop = asyncio.get_running_loop()
            for _ in range(3 * http2.STREAM_WINDOW_BYTES // 256):
                while client.local_flow_control_window(1) < 256:
                    async with asyncio.timeout(10):
                        client.receive_data(await loop.sock_recv(peer, 65_536))
                client.send_data(1, b"", pad_length=255)
                await loop.sock_sendall(peer, client.data_to_send())


async def test_a_request_that_is_given_up_at_once_is_not_run() -> None:
    app, client = Collecting(), client_of_http2()
    for number in range(20):
        client.send_headers(2 * number + 1, HEADERS)
        client.reset_stream(2 * number + 1)
    async with serve(app) as port:
        with await port.dial(client.data_to_send()) as peer:
            client.ping(b"8 bytes!")
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer, client.data_to_send())
            seen: list[type] = []
            while h2.events.PingAckReceived not in seen:
                seen += map(type, client.receive_data(await loop.sock_recv(peer, 65_536)))

    assert [] == app.bodies


async def test_requests_given_up_too_often_end_the_connection_within_one_read() -> None:
    app, client = Collecting(), client_of_http2()
    for number in range(3 * http2.MAX_RESETS):
        client.send_headers(2 * number + 1, HEADERS)
        client.reset_stream(2 * number + 1)
    data = client.data_to_send()
    async with serve(app) as port:
        connection = http2.Http2Connection(port.traffic)
        ours, theirs = socket.socketpair()
        with theirs:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, ours)
            connection.data_received(data)

            assert connection._resets == http2.MAX_RESETS + 1
            await until(lambda: not port.traffic.connections)
    assert [] == app.bodies


async def test_pings_of_a_client_that_does_not_read_are_not_kept() -> None:
    async def accept(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    async with serve(accept, buffer=SMALL_BUFFER) as port:
        with await port.dial(WEBSOCKET, buffer=SMALL_BUFFER) as client:
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 101")
            async with asyncio.timeout(20):
                for _ in range(100):
                    await loop.sock_sendall(client, 50 * PING)
                    await asyncio.sleep(0)
            await until(lambda: port.unsent > 0)

            assert port.unsent <= websocket.MAX_UNSENT_BYTES + len(PING)
            # The client is still served.
            await loop.sock_sendall(client, b"\x88\x82\0\0\0\0" + struct.pack(">H", 1000))
            await until(lambda: not port.traffic.state.tasks)
