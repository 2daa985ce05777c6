"""Forwarded ports."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from mitos.agent.client import AgentClient
from mitos.node.principal import LOCAL
from mitos.server.ports import forward as forward_module
from tests.server.exposing import forward
from tests.server.serving import DEADLINE_S, Server
from tests.server.waiting import until


def test_forwarded_ports_end_with_their_sandbox(exposing: Server) -> None:
    sandbox = exposing.create()
    address = forward(exposing, sandbox)
    exposing.delete(f"/v1/sandboxes/{sandbox}")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=DEADLINE_S).close()


def test_a_sandbox_has_so_many_forwarded_ports(exposing: Server) -> None:
    sandbox = exposing.create()
    for _ in range(16):
        forward(exposing, sandbox)
    answer = exposing.post(f"/v1/sandboxes/{sandbox}/forward", json={"guest_port": 80})
    exposing.delete(f"/v1/sandboxes/{sandbox}")

    assert (429, "too_many_streams") == (answer.status_code, answer.json()["error"]["code"])


def test_a_sandbox_that_ends_meanwhile_keeps_no_listener(
    exposing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = exposing.create()
    opened: list[asyncio.Server] = []
    start_server = asyncio.start_server

    async def start(*arguments: Any) -> asyncio.Server:
        opened.append(await start_server(*arguments))
        await exposing.node.tenant(LOCAL).terminate(sandbox)
        return opened[0]

    monkeypatch.setattr(asyncio, "start_server", start)
    answer = exposing.post(f"/v1/sandboxes/{sandbox}/forward", json={"guest_port": 80})

    assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])
    assert [False] == [listener.is_serving() for listener in opened]


def test_a_sandbox_takes_so_many_connections_and_closes_the_others(
    exposing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_module, "MAX_CONNECTIONS", 3)
    sandbox = exposing.create()

    is_over = asyncio.Event()

    async def read() -> bytes:
        await is_over.wait()
        return b""

    @contextlib.asynccontextmanager
    async def dial(_agent: AgentClient, _port: int) -> AsyncIterator[Any]:
        yield SimpleNamespace(read=read, write=mock.AsyncMock(), write_eof=mock.AsyncMock())

    monkeypatch.setattr(AgentClient, "dial", dial)
    addresses = [forward(exposing, sandbox), forward(exposing, sandbox)]
    with contextlib.ExitStack() as open_:
        dialed = [
            open_.enter_context(socket.create_connection(addresses[n % 2], timeout=DEADLINE_S))
            for n in range(5)
        ]
        until(lambda: len(ended(dialed)) >= 2)
        time.sleep(0.1)

        assert 2 == len(ended(dialed))
        exposing.loop.call_soon_threadsafe(is_over.set)
        until(lambda: len(ended(dialed)) == 5)
        again = open_.enter_context(socket.create_connection(addresses[0], timeout=DEADLINE_S))
        until(lambda: ended([again]) == [again])
    exposing.delete(f"/v1/sandboxes/{sandbox}")


def ended(connections: list[socket.socket]) -> list[socket.socket]:
    """Those that the server has closed; it says nothing on them."""
    return select.select(connections, [], [], 0)[0]
