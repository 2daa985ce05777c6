"""Forwarded ports."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from mitos.node.principal import LOCAL
from tests.server.exposing import forward
from tests.server.serving import DEADLINE_S, Server


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
