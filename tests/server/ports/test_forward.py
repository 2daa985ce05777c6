"""Forwarded ports."""

from __future__ import annotations

import socket

import pytest

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
