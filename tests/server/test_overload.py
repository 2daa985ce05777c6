"""Overload drills over the fake engine: what a server does when clients come in crowds or stall.

In each its health is answered throughout, whatever is answered is typed, and afterwards nothing is
held. `bench/overload.py` measures how long the health takes; here the bound stands against hanging.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.node.machine import room
from mitos.server import body, terminal
from mitos.server.http import connection as http_connection
from mitos.server.http import http1
from mitos.server.runtime import stream
from mitos.wire.errors import TABLE
from tests.server.at_rest import settled, wait_for_rest
from tests.server.calling import JSON_STREAM, SERVICE, envelope
from tests.server.health import Health, asking
from tests.server.serving import Server, raw, serving_fake

pytestmark = pytest.mark.timeout(120)

HEALTH_S = 5.0
"""A bound against hanging: the tests beside this one take the processors too."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with serving_fake(tmp_path / "own", max_streams=0) as running:
        yield running


def is_well(health: Health) -> None:
    """It was asked, and never went without an answer."""
    assert health.failures == []
    assert health.answers
    assert health.quantile(0.99) < HEALTH_S


def test_a_thousand_creates_at_once(own: Server) -> None:
    before = settled(own)

    async def create_all() -> list[bytes]:
        return await asyncio.gather(*(_create(own, number) for number in range(1000)))

    with asking(own) as health:
        answers = asyncio.run(create_all())

    counted = Counter(answer[9:12] for answer in answers)
    assert set(counted) <= {b"200", b"429"}, counted
    assert counted[b"200"] >= 200
    for answer in answers:
        head, _, content = answer.partition(b"\r\n\r\n")
        if answer[9:12] == b"429":
            assert json.loads(content)["error"]["code"] in ("rate_limited", "quota_exceeded")
            assert b"\r\nretry-after: " in head
    is_well(health)
    own.end_sandboxes()
    wait_for_rest(own, before)


def test_five_hundred_heads_that_drip(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEAD_DEADLINE_S", 2.0)
    monkeypatch.setattr(http1, "HEAD_DEADLINE_S", 2.0)
    before = settled(own)
    with contextlib.ExitStack() as open_, asking(own) as health:
        clients = [open_.enter_context(raw(own, b"GET /v1/he")) for _ in range(500)]
        for letter in (b"a", b"l", b"t"):
            for client in clients:
                client.sendall(letter)
        assert {b""} == {_rest(client) for client in clients}
    is_well(health)
    wait_for_rest(own, before)


def test_two_hundred_idle_websockets(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "OPEN_DEADLINE_S", 2.0)
    sandbox = own.create()
    before = settled(own)
    handshake = (
        f"GET {SERVICE}/Exec?sandbox={sandbox} HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: connect.sandbox.v1\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as open_, asking(own) as health:
        clients = [open_.enter_context(raw(own, handshake)) for _ in range(200)]
        for client in clients:
            answer = _rest(client, until=b"no first message")
            assert answer.startswith(b"HTTP/1.1 101 ")
    is_well(health)
    wait_for_rest(own, before)


def test_fifty_uploads_that_stall(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (body, stream):
        monkeypatch.setattr(module, "BODY_STALL_S", 1.0)
    sandbox = own.create()
    before = settled(own)
    opened = envelope({"open": {"path": "/workspace/f"}})
    head = (
        f"POST {SERVICE}/WriteFile HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        f"Content-Type: {JSON_STREAM}\r\nX-Sandbox-Id: {sandbox}\r\n\r\n"
    ).encode()
    create = (
        b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{"
    )
    with contextlib.ExitStack() as open_, asking(own) as health:
        uploads = [open_.enter_context(raw(own, head + opened)) for _ in range(25)]
        creates = [open_.enter_context(raw(own, create)) for _ in range(25)]
        for client in uploads:
            assert b'"code":"canceled"' in _rest(client).replace(b": ", b":")
        for client in creates:
            answer = _rest(client)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert "canceled" == json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    is_well(health)
    wait_for_rest(own, before)


def test_a_fork_of_sixty_four_where_there_is_no_memory(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = own.create()
    before = settled(own)
    monkeypatch.setattr(room, "KEPT_BYTES", 1 << 50)

    ids = [f"child-{number}" for number in range(64)]
    with asking(own) as health:
        for _ in range(20):
            answer = own.post(f"/v1/sandboxes/{sandbox}/fork", json={"ids": ids})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "quota_exceeded")
    assert error["code"] in TABLE
    assert "memory" in error["message"]
    assert [sandbox] == [each["id"] for each in own.get("/v1/sandboxes").json()]
    is_well(health)
    wait_for_rest(own, before)


async def _create(own: Server, number: int) -> bytes:
    """The answer to a create, over a connection of its own."""
    body = json.dumps({"template": "python", "id": f"sandbox-{number}"}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", own.port)
    writer.write(
        b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    answer = await reader.read()
    writer.close()
    return answer


def _rest(client: socket.socket, until: bytes | None = None) -> bytes:
    """What comes until the server closes the connection, or says something."""
    received = b""
    client.settimeout(20)
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
            if until is not None and until in received:
                break
    return received
