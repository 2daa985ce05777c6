"""Calls that ask for what cannot be, or break off in the middle of a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.server.settings import ServerSettings
from tests.server import calling
from tests.server.calling import JSON_STREAM, SERVICE, envelope
from tests.server.serving import Server, raw, serving_fake
from tests.server.waiting import open_streams, until


@pytest.mark.parametrize(
    "members",
    [
        {"command": "a\0b"},
        {"command": "true", "env": [{"key": "", "value": "x"}]},
        {"command": "true", "env": [{"key": "A=B", "value": "x"}]},
        {"command": "true", "env": [{"key": "A", "value": "\0"}]},
        {"command": "true", "cwd": "/a\0"},
    ],
)
def test_what_cannot_be_a_command_is_invalid(
    server: Server, sandbox: str, members: dict[str, object]
) -> None:
    answer = calling.stream(server, "ExecStream", sandbox, members)

    assert "invalid_argument" == calling.messages(answer.content)[1]["error"]["code"]


def test_a_broken_message_ends_the_call_as_invalid(server: Server, sandbox: str) -> None:
    body = envelope({"open": {"command": "sleep 20"}}) + envelope(b"{")
    headers = {"Content-Type": JSON_STREAM, "X-Sandbox-Id": sandbox}

    answer = server.post(f"{SERVICE}/Exec", content=body, headers=headers)

    assert "invalid_argument" == calling.messages(answer.content)[1]["error"]["code"]
    until(lambda: open_streams(server, sandbox) == 0)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_must_be_one(server: Server, sandbox: str, path: str) -> None:
    for method, member in (("List", "parent"), ("Stat", "path"), ("Mkdir", "path")):
        answer = calling.unary(server, method, sandbox, {member: path})
        assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])
    error = calling.messages(calling.write(server, sandbox, path, b"x").content)[1]["error"]
    assert "invalid_argument" == error["code"]


def test_a_message_over_the_limit_is_exhausted(tmp_path: Path) -> None:
    settings = ServerSettings(max_message_bytes=10_000)
    with serving_fake(tmp_path / "own", settings=settings) as own:
        sandbox = own.create()
        answer = calling.write(own, sandbox, "/workspace/big", b"x" * 20_000)
        assert "resource_exhausted" == calling.messages(answer.content)[1]["error"]["code"]
        head = (
            f"POST {SERVICE}/WriteFile HTTP/1.1\r\nHost: localhost\r\nX-Sandbox-Id: {sandbox}\r\n"
            f"Content-Type: {JSON_STREAM}\r\nContent-Length: 90000000\r\n\r\n"
        ).encode()
        body = envelope({"open": {"path": "/workspace/big"}}) + b"\x00\x05\x00\x00\x00{"
        with raw(own, head + body) as connection:
            received = b""
            while b"resource_exhausted" not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece


def test_an_unknown_sandbox_has_no_processes(server: Server) -> None:
    for method in ("Processes", "Signal"):
        request = {"pid": 5, "signal": 9} if method == "Signal" else {}
        answer = calling.unary(server, method, "sandbox-unknown", request)
        assert (404, "not_found") == (answer.status_code, answer.json()["code"])
