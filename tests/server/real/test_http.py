"""The port, where output must come at once."""

from __future__ import annotations

import base64
import time

from tests.server.calling import SERVICE, envelope, raw_exec
from tests.server.serving import Server, raw
from tests.server.stream_h2 import Http2Call


def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    request = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with raw(server, request * 3 + last) as connection:
        received = b""
        while piece := connection.recv(65536):
            received += piece

    assert 4 == received.count(b"HTTP/1.1 200")
    assert received.rstrip().endswith(b"ok (gvisor)")


def test_the_first_output_comes_before_the_command_ends(server: Server, sandbox: str) -> None:
    with Http2Call(server, f"{SERVICE}/ExecStream", sandbox) as call:
        call.send(envelope({"command": "echo a; sleep 1; echo b"}), ends=True)
        call.envelope()
        started = time.monotonic()
        call.envelope()
        assert time.monotonic() - started > 0.5


def test_the_first_output_comes_at_once_over_http_1(server: Server, sandbox: str) -> None:
    expected = base64.b64encode(b"a\n")
    with raw(server, raw_exec(sandbox, "echo a; sleep 60")) as connection:
        received = b""
        while expected not in received:
            piece = connection.recv(65536)
            assert piece
            received += piece
