"""The key over a real port: what needs it, and that nothing ever shows it.

That each route and call needs it is in `test_layer.py`.
"""

from __future__ import annotations

import logging

import pytest
import websocket

from mitos.server.gate.credential import check_key
from mitos.wire.errors import ApiError
from tests.server import calling
from tests.server.calling import JSON_STREAM, SERVICE, envelope
from tests.server.conftest import KEY
from tests.server.serving import Server, raw

WRONG = {
    "missing": {},
    "empty": {"Authorization": "Bearer"},
    "wrong": {"Authorization": "Bearer wrong"},
    "prefix": {"Authorization": f"Bearer {KEY[:-1]}"},
    "longer": {"Authorization": f"Bearer {KEY}x"},
    "scheme": {"Authorization": f"Basic {KEY}"},
    "bare": {"Authorization": KEY},
    "case": {"Authorization": f"bearer {KEY}"},
}


def without_key(server: Server, method: str, path: str, headers: dict[str, str]) -> int:
    with server.client() as client:
        client.headers.pop("authorization")
        answer = client.request(method, path, headers=headers)
        if answer.status_code == 401:
            assert "unauthorized" == answer.json()["error"]["code"]
            assert answer.json()["error"]["remediation"]
        assert KEY not in answer.text
        return answer.status_code


@pytest.mark.parametrize("path", ["/v1/health", "/healthz", "/readyz"])
def test_health_and_operations_are_open(keyed: Server, path: str) -> None:
    assert 200 == without_key(keyed, "GET", path, {})


def test_the_key_opens(keyed: Server) -> None:
    sandbox = keyed.create()

    assert ("hi\n", "", 0) == calling.run(keyed, sandbox, "echo hi")


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_a_runtime_call_needs_the_key(keyed: Server, headers: dict[str, str]) -> None:
    """Whether the sandbox exists is not told."""
    sandbox = keyed.create()
    for target in (sandbox, "nobody"):
        sent = {"X-Sandbox-Id": target, "Content-Type": "application/json", **headers}
        with keyed.client() as client:
            client.headers.pop("authorization")
            unary = client.post(f"{SERVICE}/List", content=b"{}", headers=sent)
            later = client.post(f"{SERVICE}/Budget", content=b"{}", headers=sent)
            sent["Content-Type"] = JSON_STREAM
            body = envelope({"command": "true"})
            stream = client.post(f"{SERVICE}/ExecStream", content=body, headers=sent)
        assert (401, "unauthenticated") == (unary.status_code, unary.json()["code"])
        assert (401, "unauthenticated") == (later.status_code, later.json()["code"])
        error = calling.messages(stream.content)[1]["error"]
        assert "unauthenticated" == error["code"]
        assert "unauthorized" == calling.detail(error)["reason"]


def test_a_call_without_the_key_is_refused_before_its_body(keyed: Server) -> None:
    head = (
        f"POST {SERVICE}/List HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "X-Sandbox-Id: x\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()

    with raw(keyed, head) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", [f"{SERVICE}/Exec", "/v1/pty"])
def test_a_terminal_is_refused_before_the_upgrade(keyed: Server, path: str) -> None:
    for sandbox in (keyed.create(), "nobody"):
        url = f"ws://127.0.0.1:{keyed.port}{path}?sandbox={sandbox}"
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            websocket.create_connection(url, header={"Authorization": "Bearer wrong"}, timeout=5)
        assert 401 == caught.value.status_code
        assert b"unauthorized" in (caught.value.resp_body or b"")


def test_a_server_without_a_key_ignores_the_header(server: Server) -> None:
    answer = server.get("/v1/sandboxes", headers={"Authorization": "Bearer anything"})

    assert 200 == answer.status_code


def test_the_key_is_never_logged(keyed: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        sandbox = keyed.create()
        calling.run(keyed, sandbox, "echo secret-command")
        keyed.get("/v1/nothing")
        keyed.get(f"/v1/sandboxes?key={KEY}")

    ours = [record.getMessage() for record in caplog.records if record.name.startswith("mitos")]
    assert ours
    assert not [line for line in ours if KEY in line or "secret-command" in line]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer \udcff", "Bearer ä"])
def test_any_header_is_checked_without_a_crash(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        check_key(header, "key")
    assert "unauthorized" == caught.value.code
