"""What a client gets of each answer of a program: the answer, or a typed 502."""

from __future__ import annotations

import http.client

import pytest

from tests.server.serving import Server
from tests.server.torture.conftest import KEY, PORT
from tests.server.torture.program import ANSWERS

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

PASSED_ON = {
    **dict.fromkeys(("plain", "chunked", "until-close"), (200, b"plain")),
    **dict.fromkeys(("continue", "early-hints", "no-reason", "old", "trailers"), (200, b"ok")),
    **dict.fromkeys(("odd-headers", "two-answers"), (200, b"ok")),
    **dict.fromkeys(("no-content", "no-content-with-body"), (204, b"")),
    "not-modified": (304, b""),
    "reset-content": (205, b""),
    "too-much": (200, b"pl"),
    "unauthorized": (401, b""),
    "upgrade-required": (426, b""),
    "error": (500, b"oops"),
    "hop-by-hop": (200, b""),
    "big": (200, ANSWERS["big"].partition(b"\r\n\r\n")[2]),
}
BROKEN_OFF = {"too-little", "huge-length", "bad-chunk", "huge-chunk", "half-a-chunk"}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_passed_on_or_told_to_be_none(
    tortured: Server, sandbox: str, name: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", tortured.port, timeout=10)
    path = f"/v1/sandboxes/{sandbox}/expose/{PORT}/answer/{name}/closes"
    connection.request(
        "GET", path, headers={"Authorization": f"Bearer {KEY}", "Accept": "application/json"}
    )
    answer = connection.getresponse()

    if name in BROKEN_OFF:
        with pytest.raises((http.client.IncompleteRead, OverflowError)):
            answer.read()
    elif name in PASSED_ON:
        assert PASSED_ON[name] == (answer.status, answer.read())
    else:
        assert answer.status == 502
        assert b'"the port did not answer with HTTP"' in answer.read()
    connection.close()
