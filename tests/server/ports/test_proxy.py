"""What the expose route adds to a port's answer; the port is a script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from mitos.server import app
from mitos.server.ports import proxy
from mitos.server.settings import ServerSettings
from mitos.wire.errors import ApiError
from tests.server.asgi import Answer, ask

EXPOSE = "/v1/sandboxes/sb-1/expose/8000/"
SANDBOX = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"
CONSOLE = "https://console.example.com"


class ScriptedPort:
    """Stands for the node: any port of any sandbox answers the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.asked = b""
        self.events = mock.Mock()

    def has_label(self, _label: str) -> bool:
        return True

    def tenant(self, _principal: object) -> ScriptedPort:
        return self

    def get_sandbox(self, _sandbox_id: str) -> Any:
        return SimpleNamespace(uid="0")

    def agent(self, _sandbox_id: str) -> Any:
        return SimpleNamespace(dial=self._dial)

    @contextlib.asynccontextmanager
    async def _dial(self, _port: int) -> AsyncIterator[ScriptedPort]:
        yield self

    async def write(self, data: bytes) -> bool:
        self.asked += data
        return True

    async def read(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer


async def exposed(answer: bytes, headers: dict[str, str] | None = None, **settings: Any) -> Answer:
    node: Any = ScriptedPort(answer)
    return await ask(app.build(node, ServerSettings(**settings)), "GET", EXPOSE, headers)


def page(*headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in ("Content-Type: text/html", *headers))
    return f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nhi".encode()


async def test_without_a_key_a_page_gets_an_origin_of_no_rights() -> None:
    answer = await exposed(page())

    assert (answer.status, answer.body) == (200, b"hi")
    assert [SANDBOX] == answer.header("content-security-policy")


async def test_the_programs_own_policy_stays_beside_ours() -> None:
    own = "default-src 'self'; sandbox allow-same-origin allow-scripts"

    answer = await exposed(page(f"Content-Security-Policy: {own}"))

    assert [own, SANDBOX] == answer.header("content-security-policy")


async def test_errors_and_redirects_of_the_program_are_sandboxed_too() -> None:
    for status in ("404 Not Found", "302 Found", "500 Oops", "206 Partial"):
        answer = await exposed(page().replace(b"200 OK", status.encode()))
        assert [SANDBOX] == answer.header("content-security-policy")


async def test_with_a_key_pages_are_left_as_they_are() -> None:
    answer = await exposed(page(), {"authorization": "Bearer secret"}, api_key="secret")

    assert (answer.status, answer.header("content-security-policy")) == (200, [])


async def test_who_may_read_an_answer_is_not_the_programs_to_say() -> None:
    program = page("Access-Control-Allow-Origin: https://other.example")

    answer = await exposed(program, {"origin": CONSOLE}, allowed_origins=(CONSOLE,))

    assert [CONSOLE] == answer.header("access-control-allow-origin")


@pytest.mark.parametrize("method", ["GET", "WEBSOCKET"])
async def test_a_page_from_the_expose_route_cannot_use_the_route(method: str) -> None:
    node: Any = ScriptedPort(page())
    built = app.build(node, ServerSettings())

    for headers in ({"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        answer = await ask(built, method, EXPOSE, headers)
        assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")
    assert node.asked == b""


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_body_without_a_length_comes_to_the_program(method: str) -> None:
    """HTTP/2 need not say one."""
    node: Any = ScriptedPort(page())

    answer = await ask(app.build(node, ServerSettings()), method, EXPOSE, body=b"the body")

    assert 200 == answer.status
    head, _, body = node.asked.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"8\r\nthe body\r\n0\r\n\r\n" == body


async def test_a_request_without_a_body_has_no_framing() -> None:
    node: Any = ScriptedPort(page())

    await ask(app.build(node, ServerSettings()), "GET", EXPOSE)

    assert b"chunked" not in node.asked


class EndlessPort(ScriptedPort):
    """Takes no body, and never ends its answer."""

    def __init__(self) -> None:
        super().__init__(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def write(self, data: bytes) -> bool:
        self.asked += data
        return data.startswith(b"POST")

    async def read(self) -> bytes:
        return await super().read() or await asyncio.Event().wait()  # type: ignore[return-value]


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_client_that_leaves_is_seen_also_when_the_program_wants_no_body(
    monkeypatch: pytest.MonkeyPatch, *, stalls: bool
) -> None:
    monkeypatch.setattr(proxy, "LOOK_S", 0.01)
    body = {"type": "http.request", "body": b"part", "more_body": True}
    messages: list[Any] = [body, body]
    messages += [ApiError("canceled", "it stalled")] * 2 * stalls
    messages += [{"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.01)
        message = messages.pop(0)
        if isinstance(message, ApiError):
            raise message
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [(b"host", b"a"), (b"content-length", b"100")],
    }
    port: Any = EndlessPort()
    request = proxy._Request(scope, receive, send, port)
    async with asyncio.timeout(10):
        await request.carry(b"/", [(b"Host", b"a"), (b"Content-Length", b"100")])

    assert [] == messages
    assert ["http.response.start"] == [message["type"] for message in sent]
