"""The log: one line a request, with nothing in it that a client could choose freely."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from tests.server import calling
from tests.server.serving import Server, raw
from tests.server.waiting import until

Lines = Callable[[], list[str]]

LINE = re.compile(
    r"request=[0-9a-f]{12} method=\S+ op=\S+ sandbox=\S+ status=\d+ code=\S+ ms=\d+\.\d"
)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What the journal has written so far."""
    caplog.set_level(logging.INFO, logger="mitos.server.journal")

    def written() -> list[str]:
        return [
            record.getMessage()
            for record in list(caplog.records)
            if record.name == "mitos.server.journal"
        ]

    return written


def line_with(part: str, lines: Lines) -> str:
    """The line that has this part; it may come just after the answer, and others before it."""
    until(lambda: any(part in line for line in lines()))
    line = next(line for line in lines() if part in line)
    assert LINE.fullmatch(line), line
    return line


def test_a_route_is_logged_with_its_sandbox(server: Server, sandbox: str, lines: Lines) -> None:
    server.get(f"/v1/sandboxes/{sandbox}")

    line = line_with("method=GET op=/v1/sandboxes/* ", lines)
    assert f"sandbox={sandbox} status=200 code=- " in line


def test_a_sandbox_named_in_the_body_is_logged(server: Server, sandbox: str, lines: Lines) -> None:
    server.post("/v1/pause", json={"sandbox": sandbox})

    assert f"sandbox={sandbox} status=200" in line_with("op=/v1/pause ", lines)


def test_a_failure_is_logged_with_its_code(server: Server, lines: Lines) -> None:
    server.post("/v1/fork", json={"template": "none", "id": "from-none"})

    assert "status=404 code=not_found" in line_with("op=/v1/fork sandbox=from-none ", lines)


def test_a_failed_stream_is_logged_with_its_code(server: Server, lines: Lines) -> None:
    calling.stream(server, "ExecStream", "nobody", {"command": "true"})

    line = line_with("sandbox=nobody ", lines)
    assert "op=/sandbox.v1.Sandbox/ExecStream sandbox=nobody status=200 code=not_found" in line


def test_a_broken_frame_is_logged_with_its_code(server: Server, lines: Lines) -> None:
    headers = {"Content-Type": calling.JSON_STREAM, "X-Sandbox-Id": "broken"}
    server.post(f"{calling.SERVICE}/ExecStream", content=b"\x40\0\0\0\0", headers=headers)

    assert "status=200 code=invalid_argument" in line_with("sandbox=broken ", lines)


def test_the_number_of_the_line_is_in_the_answer(server: Server, lines: Lines) -> None:
    answer = server.get("/v1/nothing")

    assert " op=/v1/nothing " in line_with(f"request={answer.headers['x-request-id']} ", lines)


def test_a_client_cannot_write_lines_or_fields(server: Server, lines: Lines) -> None:
    path = b"/v1/sandboxes/x%0Arequest=1%20status=200/fork%0D%0Aop=%C3%A9"
    request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nX-Sandbox-Id: a status=1\r\n\r\n"
    with raw(server, request) as connection:
        connection.recv(1000)

    line = line_with("method=GET op=/v1/sandboxes/*/fork??", lines)
    assert "\n" not in line
    assert "sandbox=- " in line
    assert 1 == line.count("status=")


def test_a_client_that_goes_away_in_its_body_is_no_bug(
    server: Server, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    head = "POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with raw(server, head.encode() + b'{"id"'):
        pass

    assert "op=/v1/fork sandbox=- status=499" in line_with("code=canceled ", lines)
    assert [] == [each for each in caplog.records if each.levelno >= logging.ERROR]
