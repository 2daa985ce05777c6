"""The port: what comes before any route, and how the server stops."""

from __future__ import annotations

import contextlib
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websocket

from mitos.server.http import connection as http_connection
from mitos.server.http import http1
from mitos.server.http import server as http_server
from mitos.server.settings import ServerSettings
from tests.server import calling
from tests.server.calling import SERVICE, envelope, raw_exec
from tests.server.serving import Server, raw, serving_fake
from tests.server.stream_h2 import Http2Call
from tests.server.waiting import open_streams, until

DEADLINE_S = 15

HOSTILE = {
    "no HTTP": b"\x00\xff\x00\xff\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "endless header": b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
    "no host": b"GET /v1/health HTTP/1.1\r\n\r\n",
    "bad length": b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "two lengths": (
        b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "bad chunk": (
        b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZZ\r\n"
    ),
    "path that is no text": b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "escaped path that is no text": b"GET /v1/sandboxes/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "query that is no text": b"GET /v1/pty?sandbox=%ff\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2 garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_end_their_own_connection_only(server: Server, data: bytes) -> None:
    with raw(server, b"") as connection:
        connection.settimeout(1)
        try:
            connection.sendall(data)
            answer = connection.recv(65536)
        except OSError:
            answer = b""

    assert b"Traceback" not in answer
    assert not answer.startswith(b"HTTP/1.1 200")
    assert 200 == server.get("/v1/health").status_code


def test_without_a_key_a_request_must_name_its_host(server: Server) -> None:
    """HTTP/1.0 need not, and a whole URL in place of the path names another."""
    for request in (
        b"GET /v1/sandboxes HTTP/1.0\r\n\r\n",
        b"GET /v1/sandboxes HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/v1/sandboxes HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ):
        with raw(server, request) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_the_authority_of_http_2_is_the_host(server: Server) -> None:
    with server.client(http1=False, http2=True) as client:
        own = client.get("/v1/sandboxes")
        foreign = client.get("/v1/sandboxes", headers={"Host": "evil.example"})

    assert (own.http_version, own.status_code) == ("HTTP/2", 200)
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "forbidden")


def test_a_body_may_come_in_chunks(server: Server, sandbox: str) -> None:
    body = b'{"sandbox": "' + sandbox.encode() + b'"}'
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body)))
    head = (
        b"POST /v1/resume HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with raw(server, head + chunks + b"0\r\n\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_refusal_waits_for_a_short_body_and_keeps_the_connection(tmp_path: Path) -> None:
    with serving_fake(tmp_path / "own", settings=ServerSettings(api_key="secret")) as own:
        connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=10)
        with contextlib.closing(connection):
            connection.connect()
            first = connection.sock
            for _ in range(3):
                connection.putrequest("POST", f"{SERVICE}/List")
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", "2")
                connection.endheaders()
                time.sleep(0.05)  # the refusal is ready before the body comes
                connection.send(b"{}")
                answer = connection.getresponse()
                answer.read()
                assert 401 == answer.status
                assert first is connection.sock


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["nothing", "a part"])
def test_a_connection_ends_when_the_rest_of_a_body_does_not_come(
    server: Server, sent: bytes
) -> None:
    head = b"POST /v1/nothing-here HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with raw(server, head + sent) as connection:
        received = b""
        while piece := connection.recv(65536):
            received += piece

    assert received.startswith(b"HTTP/1.1 404 ")


def test_the_rest_of_a_body_that_comes_after_the_answer_is_dropped(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/nothing-here")
        connection.putheader("Content-Length", "100000")
        connection.endheaders()
        refusal = connection.getresponse()
        refusal.read()
        first = connection.sock
        connection.send(b"x" * 100_000)
        connection.request("GET", "/v1/health")
        answer = connection.getresponse()

        assert (refusal.status, answer.status) == (404, 200)
        assert first is connection.sock


def test_a_head_that_does_not_come_ends_its_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_DEADLINE_S", 0.3)
    monkeypatch.setattr(http1, "HEAD_DEADLINE_S", 0.3)
    for sent in (b"", b"GET /v1/hea", b"PRI * HTTP/2"):
        with raw(server, sent) as connection:
            assert connection.recv(1000) == b""


def test_when_all_connections_are_taken_the_longest_idle_gives_way(tmp_path: Path) -> None:
    with serving_fake(tmp_path / "own", settings=ServerSettings(max_connections=3)) as own:
        sandbox = own.create()
        with raw(own, raw_exec(sandbox, "sleep 60")) as busy, raw(own) as idle, raw(own):
            until(lambda: open_streams(own, sandbox) == 1)
            assert 200 == own.get("/v1/health").status_code
            assert idle.recv(1000) == b""
            assert 1 == open_streams(own, sandbox)
            busy.close()


def test_when_all_connections_are_busy_a_client_is_told_to_come_again(tmp_path: Path) -> None:
    with serving_fake(tmp_path / "own", settings=ServerSettings(max_connections=1)) as own:
        sandbox = own.create()
        with raw(own, raw_exec(sandbox, "sleep 60")):
            until(lambda: open_streams(own, sandbox) == 1)
            answer = own.get("/v1/health")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


# Stopping


def refuses(server: Server) -> bool:
    try:
        with raw(server):
            return False
    except ConnectionResetError:  # it was in the queue of the socket that was closed
        return False
    except ConnectionRefusedError:
        return True


def test_a_stop_tells_open_streams_why_they_end(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with serving_fake(tmp_path / "own") as own:
            sandbox = own.create()
            running = pool.submit(
                calling.stream, own, "ExecStream", sandbox, {"command": "sleep 60"}
            )
            until(lambda: open_streams(own, sandbox) == 1)
            started = time.monotonic()
        answer = running.result(5)

    assert time.monotonic() - started < 4
    assert "not_found" == calling.messages(answer.content)[1]["error"]["code"]


def test_idle_and_unfinished_connections_do_not_hold_a_stop(tmp_path: Path) -> None:
    with serving_fake(tmp_path / "own") as own:
        sandbox = own.create()
        half_a_request = b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
        url = f"ws://127.0.0.1:{own.port}/v1/pty?sandbox={sandbox}"
        terminal = websocket.create_connection(url, subprotocols=["mitos.pty.v1"], timeout=5)
        with (
            raw(own),
            raw(own, half_a_request),
            raw(own, raw_exec(sandbox, "sleep 60")),
            Http2Call(own, f"{SERVICE}/Exec", sandbox) as call,
        ):
            call.send(envelope({"open": {"command": "sleep 60"}}))
            until(lambda: open_streams(own, sandbox) == 3)
            started = time.monotonic()
            own.stop()
            own.join()
            took = time.monotonic() - started
        terminal.close()

    assert took < 12


def test_who_has_just_connected_is_served_before_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "BEGIN_S", DEADLINE_S)
    with serving_fake(tmp_path / "own") as own, raw(own) as connection:
        own.get("/v1/health")  # so the connection before this one has been taken
        own.stop()
        until(lambda: refuses(own))
        connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_stopped_server_takes_no_connection(tmp_path: Path) -> None:
    with serving_fake(tmp_path / "own") as own:
        own.stop()
        own.join()
        with pytest.raises(ConnectionRefusedError), raw(own):
            pass
