"""The gate on every route and every runtime call there is, as the application itself has them.

A new route or call is covered without being named here. The node behind is one that must not be
touched: what is refused is refused before anything is looked up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from mitos.server import app
from mitos.server.gate.layer import OPEN_PATHS
from mitos.server.ports.proxy import PortProxy
from mitos.server.settings import PreviewSettings, ServerSettings
from mitos.server.tenant import Tenants
from mitos.wire._generated.sandbox.v1.sandbox_connect import Sandbox
from mitos.wire.preview import Grant, mint, start_session
from tests.server import calling
from tests.server.asgi import Answer, ask

KEY = "key-that-nobody-may-see"
RIGHT = {"authorization": f"Bearer {KEY}"}
SECRET = b"0123456789abcdef"
PREVIEW = PreviewSettings("http://preview.test:8443", SECRET)
SETTINGS = ServerSettings(base_url="http://127.0.0.1:8080", preview=PREVIEW)

PROTO = Path(__file__).parents[3] / "spec" / "sandbox" / "v1" / "sandbox.proto"
EXPOSE = "/v1/sandboxes/sb-1/expose/8000"
TERMINALS = ("/sandbox.v1.Sandbox/Exec", "/v1/pty")

WRONG_KEYS = {
    "missing": {},
    "empty": {"authorization": "Bearer"},
    "wrong": {"authorization": "Bearer wrong"},
    "prefix": {"authorization": f"Bearer {KEY[:-1]}"},
    "longer": {"authorization": f"Bearer {KEY}x"},
    "scheme": {"authorization": f"Basic {KEY}"},
    "bare": {"authorization": KEY},
    "case": {"authorization": f"bearer {KEY}"},
}
FOREIGN_PAGES = {
    "another site": {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
    "another site, an old browser": {"origin": "http://evil.example"},
    "another port": {"origin": "http://127.0.0.1:8081"},
    "a preview": {"origin": "http://sb-1.preview.test:8443"},
    "no origin of its own": {"origin": "null"},
    "a read of another site": {"sec-fetch-site": "cross-site"},
    "a read of the same site": {"sec-fetch-site": "same-site"},
}
FOREIGN_HOSTS = {
    "a name": {"host": "evil.example:8080"},
    "a page of that name": {"host": "evil.example:8080", "origin": "http://evil.example:8080"},
    "empty": {"host": ""},
    "malformed": {"host": "localhost/"},
    "another address": {"host": "10.9.9.9:8080"},
}

Request = tuple[str, str, dict[str, str]]


class Touched(BaseException):
    """The node was asked for something. The server's own handlers must not answer it."""


class Untouchable:
    """Stands for the node; remembers what was asked of it, and refuses."""

    def __init__(self) -> None:
        self.touched: list[str] = []
        self.events = mock.Mock()

    def has_label(self, label: str) -> bool:
        """A host that no sandbox has is told so before anything else, as the contract says."""
        return label == "sb-1"

    def __getattr__(self, name: str) -> Any:
        self.touched.append(name)
        raise Touched(f"the node's {name} was asked for")


@pytest.fixture
def node() -> Untouchable:
    return Untouchable()


def build(node: Untouchable, **settings: Any) -> ASGIApp:
    built = app.build(node, replace(SETTINGS, **settings))  # type: ignore[arg-type]
    node.touched.clear()
    return built


def every_request() -> Iterator[Request]:
    """One for each method of each route, each WebSocket, and each runtime call."""
    node = mock.Mock()
    tenants = Tenants(node)
    for route in app.routes(node, SETTINGS, tenants, PortProxy(tenants)):
        if isinstance(route, WebSocketRoute):
            yield "WEBSOCKET", f"{filled(route.path)}?sandbox=sb-1", {}
            continue
        assert isinstance(route, Route)
        for method in sorted(route.methods or {"GET", "POST", "PUT", "DELETE", "OPTIONS"}):
            yield method, filled(route.path), {"content-type": "application/json"}
    for call in Sandbox.desc().methods:
        path = f"/{Sandbox.desc().type_name}/{call.name}"
        is_unary = call.method_kind == "unary"
        for codec in ("json", "proto"):
            kind = f"application/{codec}" if is_unary else f"application/connect+{codec}"
            yield "POST", path, {"content-type": kind, "x-sandbox-id": "sb-1"}


def filled(path: str) -> str:
    """A route's path with something for each variable part."""
    return re.sub(r"{\w+(:path)?}", "8000", path.replace("{id}", "sb-1"))


def is_open(request: Request) -> bool:
    return request[1] in OPEN_PATHS


REQUESTS = list(every_request())
CLOSED = [request for request in REQUESTS if not is_open(request)]


def name_of(request: Request) -> str:
    return " ".join((request[0], request[1], *request[2].values()))


def refusal(answer: Answer) -> tuple[str, str]:
    """Code and remediation, from an envelope, a Connect error or a Connect stream's end."""
    kind = answer.header("content-type")[0]
    if kind.startswith("text/plain"):  # the expose route answers as its client asks
        return {401: "unauthorized", 403: "forbidden"}[answer.status], answer.body.decode()
    if kind == "application/json" and "error" in answer.json():
        error = answer.json()["error"]
        return str(error["code"]), str(error["remediation"])
    if kind.startswith("application/connect+"):
        ((flags, payload),) = calling.envelopes(answer.body)
        assert (answer.status, flags) == (200, calling.END_STREAM)
        error = json.loads(payload)["error"]
    else:
        error = answer.json()
        assert (answer.status, error["code"]) == (401, "unauthenticated")
    detail = calling.detail(error)
    return str(detail["reason"]), str(detail["metadata"]["remediation"])


async def check_refused(
    node: Untouchable, built: ASGIApp, request: Request, headers: Mapping[str, str], code: str
) -> str:
    method, target, own = request
    answer = await ask(built, method, target, {**own, **headers}, body=b"{}")

    found, remediation = refusal(answer) if method != "HEAD" else (code, "")
    assert found == code
    if code == "forbidden":
        assert answer.status == 403
    else:
        assert answer.status == (200 if "connect+" in own.get("content-type", "") else 401)
    assert node.touched == []
    assert not answer.was_read, "the body was read"
    assert KEY not in answer.body.decode("latin-1")
    return remediation


def test_every_kind_of_request_is_in_the_table() -> None:
    methods = [method for method, _, _ in REQUESTS]
    assert methods.count("WEBSOCKET") == 4
    calls = PROTO.read_text().count("\n  rpc ")
    assert calls >= 21
    assert len([path for _, path, _ in REQUESTS if "Sandbox/" in path]) == 2 * calls + 1
    assert len({path for _, path, _ in REQUESTS}) > 45
    assert {path for _, path, _ in REQUESTS} >= OPEN_PATHS


@pytest.mark.parametrize("request_", CLOSED, ids=name_of)
async def test_a_request_without_the_right_key_is_refused(
    node: Untouchable, request_: Request
) -> None:
    built = build(node, api_key=KEY)

    for headers in WRONG_KEYS.values():
        await check_refused(node, built, request_, headers, "unauthorized")


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
async def test_a_page_of_another_site_is_refused_with_and_without_a_key(
    node: Untouchable, request_: Request
) -> None:
    for built, key in (
        (build(node), {}),
        (build(node, api_key=KEY), {}),
        (build(node, api_key=KEY), RIGHT),
    ):
        for headers in FOREIGN_PAGES.values():
            remediation = await check_refused(
                node, built, request_, {**headers, **key}, "forbidden"
            )
            assert request_[0] == "HEAD" or "--allow-origin" in remediation


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
async def test_a_foreign_host_is_refused_without_a_key(
    node: Untouchable, request_: Request
) -> None:
    built = build(node)

    for headers in FOREIGN_HOSTS.values():
        remediation = await check_refused(node, built, request_, headers, "forbidden")
        assert request_[0] == "HEAD" or "--allow-host" in remediation


@pytest.mark.parametrize("request_", CLOSED, ids=name_of)
async def test_a_foreign_host_opens_nothing_with_a_key(
    node: Untouchable, request_: Request
) -> None:
    built = build(node, api_key=KEY)

    for headers in FOREIGN_HOSTS.values():
        await check_refused(node, built, request_, headers, "unauthorized")


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
async def test_the_right_caller_gets_past_the_gate(node: Untouchable, request_: Request) -> None:
    """Else the tests above would show nothing."""
    method, target, own = request_
    for built, key in ((build(node), {}), (build(node, api_key=KEY), RIGHT)):
        for page in ({}, {"origin": "http://127.0.0.1:8080"}, {"sec-fetch-site": "none"}):
            node.touched.clear()
            answer = Answer()
            with contextlib.suppress(Touched):
                answer = await ask(built, method, target, {**own, **key, **page}, body=b"{}")
            assert answer.status not in (401, 403)
            assert node.touched or answer.status in (200, 400)


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/sandbox.v1.Sandbox/Nothing", "/v2/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE", "WEBSOCKET"])
async def test_what_there_is_not_is_refused_like_what_there_is(
    node: Untouchable, method: str, path: str
) -> None:
    answer = await ask(build(node, api_key=KEY), method, path)
    assert answer.status == 401

    answer = await ask(build(node), method, path, {"origin": "http://evil.example"})
    assert answer.status == 403


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_to_a_runtime_call_is_refused_with_an_envelope(
    node: Untouchable, content_type: str
) -> None:
    headers = {"origin": "null", "content-type": content_type}

    answer = await ask(build(node), "POST", "/sandbox.v1.Sandbox/List", headers, body=b"a=b")

    assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_the_log_says_what_was_refused(
    node: Untouchable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mitos.server.journal"):
        await ask(build(node), "POST", "/v1/fork", {"origin": "http://evil.example"})

    (line,) = [record.getMessage() for record in caplog.records]
    assert "op=/v1/fork sandbox=- status=403 code=forbidden" in line
    assert "evil" not in line


# The address the server is reached at


async def test_the_address_of_the_connection_is_served(node: Untouchable) -> None:
    built, headers = build(node), {"host": "192.168.3.4:8080"}

    there = await ask(built, "GET", "/v1/nothing", headers, server=("192.168.3.4", 8080))
    elsewhere = await ask(built, "GET", "/v1/nothing", headers)

    assert (there.status, elsewhere.status) == (404, 403)


async def test_configured_hosts_are_served(node: Untouchable) -> None:
    built = build(node, allowed_hosts=("box.example.com",))

    for name, status in (("box.example.com:8080", 404), ("other.example.com:8080", 403)):
        assert status == (await ask(built, "GET", "/v1/nothing", {"host": name})).status


# Previews


def token(sandbox: str = "sb-1", port: int = 8000) -> str:
    return mint(SECRET, Grant(sandbox, port, int(time.time()) + 100))


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("path", ["/v1/sandboxes", "/v1/health", "/healthz", EXPOSE])
async def test_a_preview_host_never_reaches_the_api(
    node: Untouchable, key: str | None, path: str
) -> None:
    """Not with the key of the API either: it is no token."""
    built = build(node, api_key=key)
    for host in ("sb-1.preview.test:8443", "SB-1.preview.test.", "nobody.preview.test"):
        for method in ("GET", "POST", "WEBSOCKET"):
            answer = await ask(built, method, path, {"host": host, **RIGHT})
            assert answer.status == (404 if host.startswith("nobody") else 401)
    assert node.touched == []


async def test_a_host_no_sandbox_can_have_is_not_found(node: Untouchable) -> None:
    for host in ("www.preview.test", "a.b.preview.test"):
        answer = await ask(build(node), "GET", "/", {"host": host})
        assert (answer.status, node.touched) == (404, [])


async def test_a_session_or_token_gets_past_the_gate(node: Untouchable) -> None:
    """The page's own origin is its own affair."""
    built = build(node, api_key=KEY)
    session = start_session(SECRET, Grant("sb-1", 8000, int(time.time()) + 100))
    cookie = {"cookie": f"a=b; __Host-mitos_expose=forged; __Host-mitos_expose={session}"}
    for shown in ({"authorization": f"Bearer {token()}"}, cookie):
        node.touched.clear()
        headers = {"host": "sb-1.preview.test", "origin": "http://evil.example", **shown}
        with pytest.raises(Touched, match="tenant"):
            await ask(built, "GET", "/", headers)


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_token_opens_its_port_and_nothing_else(node: Untouchable, key: str | None) -> None:
    built = build(node, api_key=key)
    with pytest.raises(Touched, match="tenant"):
        await ask(built, "GET", f"{EXPOSE}/below?token={token()}")
    node.touched.clear()

    for target in ("/v1/sandboxes/sb-2/expose/8000", "/v1/sandboxes/sb-1/expose/8001"):
        assert 403 == (await ask(built, "GET", f"{target}?token={token()}")).status
    for forged in ("x", token()[:-1], mint(b"another secret of 16", Grant("sb-1", 8000, 1 << 40))):
        assert 401 == (await ask(built, "GET", f"{EXPOSE}?token={forged}")).status
    if key is not None:
        for target in ("/v1/sandboxes", "/v1/sandboxes/sb-1", "/v1/sandboxes/sb-1/commands"):
            assert 401 == (await ask(built, "GET", f"{target}?token={token()}")).status
    assert node.touched == []


async def test_a_token_helps_no_page_of_another_site(node: Untouchable) -> None:
    for method in ("GET", "POST", "WEBSOCKET"):
        headers = {"origin": "http://evil.example"}
        answer = await ask(build(node), method, f"{EXPOSE}?token={token()}", headers)
        assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")
    assert node.touched == []


async def test_a_link_with_a_token_works_from_any_site(node: Untouchable) -> None:
    for site in ("cross-site", "same-site", "none"):
        with pytest.raises(Touched, match="tenant"):
            await ask(build(node), "GET", f"{EXPOSE}?token={token()}", {"sec-fetch-site": site})
        without = await ask(build(node), "GET", EXPOSE, {"sec-fetch-site": "cross-site"})
        assert without.status == 403


# Pages of configured origins

CONSOLE = "https://console.example.com"


@pytest.mark.parametrize("path", ["/v1/fork", "/sandbox.v1.Sandbox/ExecStream", EXPOSE])
async def test_a_browser_is_told_that_a_configured_page_may_send(
    node: Untouchable, path: str
) -> None:
    built = build(node, api_key=KEY, allowed_origins=(CONSOLE,))
    asked = {
        "origin": CONSOLE,
        "sec-fetch-site": "cross-site",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    answer = await ask(built, "OPTIONS", path, asked)

    assert (answer.status, node.touched) == (204, [])
    assert [CONSOLE] == answer.header("access-control-allow-origin")
    assert ["authorization,content-type"] == answer.header("access-control-allow-headers")
    assert "POST" in answer.header("access-control-allow-methods")[0]
    assert ["Origin"] == answer.header("vary")


async def test_headers_a_page_asks_for_are_not_echoed_when_they_are_none(
    node: Untouchable,
) -> None:
    built = build(node, allowed_origins=(CONSOLE,))
    asked = {"origin": CONSOLE, "access-control-request-method": "POST"}

    answer = await ask(
        built, "OPTIONS", "/v1/fork", {**asked, "access-control-request-headers": "a: b"}
    )

    assert (answer.status, answer.header("access-control-allow-headers")) == (204, [])


async def test_a_configured_page_can_read_answers_and_refusals(node: Untouchable) -> None:
    built = build(node, api_key=KEY, allowed_origins=(CONSOLE,))

    for headers, status in ((RIGHT, 404), ({}, 401)):
        answer = await ask(built, "GET", "/v1/nothing", {"origin": CONSOLE, **headers})
        assert answer.status == status
        assert [CONSOLE] == answer.header("access-control-allow-origin")


async def test_nobody_else_gets_cors_headers(node: Untouchable) -> None:
    built = build(node, allowed_origins=(CONSOLE,))

    for headers in ({}, {"origin": "http://127.0.0.1:8080"}, {"origin": "http://evil.example"}):
        answer = await ask(built, "GET", "/v1/nothing", headers)
        assert answer.header("access-control-allow-origin") == []


async def test_a_configured_page_still_needs_a_known_host(node: Untouchable) -> None:
    built = build(node, allowed_origins=(CONSOLE,))

    answer = await ask(built, "GET", "/v1/nothing", {"origin": CONSOLE, "host": "evil.example"})

    assert answer.status == 403
