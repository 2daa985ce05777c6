"""The client's end of a WebSocket to a port: what is written on it stays whole."""

from __future__ import annotations

import asyncio

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
)

from mitos.server.ports.websocket import _Inner

PIECE = 1000


class SlowTunnel:
    """Takes data piece by piece, as one does that waits for credit."""

    def __init__(self) -> None:
        self.port = WSConnection(ConnectionType.SERVER)
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, data: bytes) -> bool:
        for start in range(0, len(data), PIECE):
            self.port.receive_data(data[start : start + PIECE])
            await asyncio.sleep(0)
        return True

    async def read(self) -> bytes:
        return await self._answers.get()

    def answer(self, *events: object) -> None:
        self._answers.put_nowait(b"".join(self.port.send(event) for event in events))  # type: ignore[arg-type]


async def connected() -> tuple[_Inner, SlowTunnel]:
    tunnel = SlowTunnel()
    inner = _Inner(tunnel)  # type: ignore[arg-type]
    shaking = asyncio.create_task(inner.shake_hands(Request(host="a", target="/")))
    async with asyncio.timeout(5):
        while not (events := list(tunnel.port.events())):
            await asyncio.sleep(0)
    assert isinstance(events[0], Request)
    tunnel.answer(AcceptConnection())
    assert isinstance(await shaking, AcceptConnection)
    return inner, tunnel


async def test_an_answer_to_a_ping_does_not_come_inside_of_a_message() -> None:
    inner, tunnel = await connected()
    sent = bytes(200_000)
    messages = [{"type": "websocket.receive", "bytes": sent}]

    async def receive() -> dict[str, object]:
        return dict(messages.pop()) if messages else await asyncio.Event().wait()  # type: ignore[func-returns-value,return-value]

    async def ignore(_message: object) -> None:
        return None

    tasks = [asyncio.create_task(inner.feed(receive)), asyncio.create_task(inner.serve(ignore))]  # type: ignore[arg-type]
    for number in range(20):
        await asyncio.sleep(0)
        tunnel.answer(Ping(b"%d" % number))
    pongs, got = 0, bytearray()
    async with asyncio.timeout(10):
        while len(got) < len(sent) or pongs < 20:
            await asyncio.sleep(0)
            for event in tunnel.port.events():
                pongs += isinstance(event, Pong)
                got += event.data if isinstance(event, BytesMessage) else b""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert sent == got


async def test_what_comes_after_the_ports_close_is_dropped() -> None:
    inner, tunnel = await connected()
    tunnel.answer(CloseConnection(code=1000))
    said: list[object] = []

    async def keep(message: object) -> None:
        said.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "websocket.receive", "bytes": b"late"}

    await inner.serve(keep)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await inner.feed(receive)  # type: ignore[arg-type]

    assert [{"type": "websocket.close", "code": 1000, "reason": ""}] == said
