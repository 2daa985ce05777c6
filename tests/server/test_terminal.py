"""Terminals over both WebSocket routes, as far as no program runs."""

from __future__ import annotations

import pytest
import websocket

from mitos.server.runtime.execution import Timeouts, exec_request
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from tests.server.calling import SERVICE, envelope
from tests.server.conftest import KEY
from tests.server.dialing import CURRENT, LEGACY, dial, refusal, rest, stdin
from tests.server.serving import Server
from tests.server.waiting import open_streams, until


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_handshakes_are_refused_with_an_envelope(server: Server, subprotocol: str) -> None:
    assert refusal(server, subprotocol, "sandbox=sandbox-unknown") == (404, "not_found")
    assert refusal(server, subprotocol, "cols=80") == (400, "invalid_input")
    assert refusal(server, subprotocol, "sandbox=../etc") == (400, "invalid_input")


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}])
def test_a_missing_or_wrong_key_is_401(
    keyed: Server, subprotocol: str, header: dict[str, str]
) -> None:
    query = "sandbox=sandbox-unknown"
    assert refusal(keyed, subprotocol, query, header=header) == (401, "unauthorized")
    right = {"Authorization": f"Bearer {KEY}"}
    assert refusal(keyed, subprotocol, query, header=right) == (404, "not_found")


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_the_subprotocol_is_echoed_to_the_servers_own_origin(
    server: Server, sandbox: str, subprotocol: str
) -> None:
    """Published clients send an `Origin` equal to the server's own, or none."""
    query = f"sandbox={sandbox}"
    for options in ({"origin": server.url}, {"suppress_origin": True}):
        with dial(server, subprotocol, query, **options) as connection:
            assert connection.getsubprotocol() == subprotocol


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_a_foreign_origin_is_refused_before_the_upgrade(
    server: Server, keyed: Server, sandbox: str, subprotocol: str
) -> None:
    """A page of any site can open a WebSocket to any address."""
    for running in (server, keyed):
        for origin in ("https://elsewhere.example", "null"):
            found = refusal(running, subprotocol, f"sandbox={sandbox}", origin=origin)
            assert found == (403, "forbidden")


def test_the_first_message_must_open(server: Server, sandbox: str) -> None:
    for first in (
        stdin(b"x"),
        envelope({}),
        envelope(b"{"),
        b"",
        b"\0\0\0\0\5x",
        b"\1" + envelope({})[1:],
    ):
        with dial(server, CURRENT, f"sandbox={sandbox}") as connection:
            connection.send_binary(first)
            _, ended, close_code = rest(connection)
        assert (1, 1003) == (ended["exitCode"], close_code), first
        assert ended["error"]
    until(lambda: open_streams(server, sandbox) == 0)


def test_a_terminal_has_no_deadline_of_the_servers() -> None:
    timeouts = Timeouts(exec_s=1, code_s=1, ceiling_s=100)

    wanted = exec_request(pb.ExecOpen(pty=pb.PtyOptions()), "sandbox-x", timeouts, stdin=True)
    assert wanted.timeout_s is None


@pytest.mark.parametrize("path", ["/v1/pty", f"{SERVICE}/Exec"])
def test_a_client_without_the_subprotocol_is_refused(
    server: Server, sandbox: str, path: str
) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}{path}?sandbox={sandbox}"

    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(url, timeout=5)

    assert caught.value.status_code == 400
    assert b"subprotocol" in caught.value.resp_body
