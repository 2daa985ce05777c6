"""Ports inside a sandbox over HTTP: the expose route, preview hosts, forwarded ports."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from mitos.server.settings import PreviewSettings, ServerSettings
from tests.server import calling
from tests.server.exposing import PORT, SECRET, at_host, expose, forward, seen, token
from tests.server.serving import DEADLINE_S, Server, serving

GUEST = r"""
import http.server, json, socketserver, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, body, **headers):
        self.send_response(200)
        for name, value in headers.items(): self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for number in range(100):
                self.wfile.write(b"data: %d\n\n" % number)
                self.wfile.flush()
                time.sleep(0.2)
        elif path == "/big":
            self.answer(b"0123456789abcdef" * (2 << 20))
        elif path == "/slow":
            time.sleep(1.5)
            self.answer(b"slow")
        elif path == "/nonsense":
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True
        elif path == "/long":
            self.answer(b"x", X_Long="y" * 300000)
        else:
            seen = {"path": self.path, "headers": list(self.headers.items())}
            self.answer(json.dumps(seen).encode(),
                        Set_Cookie="mine=1", X_Guest="yes", Connection="X-Private", X_Private="no")
    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            size = 0
            while part := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(part)); self.rfile.readline()
            self.rfile.readline()
        else:
            size = 0
            left = int(self.headers["Content-Length"])
            while left:
                data = self.rfile.read(min(left, 65536)); left -= len(data); size += len(data)
        self.answer(str(size).encode())
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
Server(("127.0.0.1", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def exposing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key and previews."""
    settings = ServerSettings(
        api_key="the key", preview=PreviewSettings("http://preview.test:8443", SECRET)
    )
    with serving(tmp_path_factory.mktemp("exposing"), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def page(exposing: Server) -> str:
    """A sandbox that serves on the port."""
    sandbox = exposing.create()
    calling.write(exposing, sandbox, "/tmp/server.py", GUEST.encode())
    start = "python3 /tmp/server.py >/tmp/log 2>&1 & "
    ready = f"until curl -s 127.0.0.1:{PORT}/ >/dev/null; do sleep 0.05; done"
    calling.run(exposing, sandbox, start + ready)
    return sandbox


# What the port sees


@pytest.mark.parametrize(
    ("asked", "path"),
    [("", "/"), ("/", "/"), ("/a/b?x=1&y=%20", "/a/b?x=1&y=%20"), ("/%2e/é%2Fx", None)],
)
def test_the_prefix_goes_and_the_query_stays(
    exposing: Server, page: str, asked: str, path: str | None
) -> None:
    found, _ = seen(exposing.get(expose(page, asked)))

    assert found == (path or "/%2e/%C3%A9%2Fx")


def test_headers_of_the_page_pass_and_ours_do_not(exposing: Server, page: str) -> None:
    cookies = "a=1; __Host-mitos_expose=secret; b=2"
    answer = exposing.get(
        expose(page),
        headers={"X-Mine": "1", "Cookie": cookies, "X-Auth-Request-User": "root", "TE": "trailers"},
    )

    _, headers = seen(answer)
    assert headers["x-mine"] == "1"
    assert headers["cookie"] == "a=1; b=2"
    assert headers["host"] == headers["x-forwarded-host"] == f"127.0.0.1:{exposing.port}"
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert not {"authorization", "x-auth-request-user", "te"} & set(headers)
    assert "the key" not in answer.text


def test_headers_of_the_answer_pass_but_not_those_of_the_connection(
    exposing: Server, page: str
) -> None:
    answer = exposing.get(expose(page))

    assert ("yes", "mine=1") == (answer.headers["x-guest"], answer.headers["set-cookie"])
    assert "x-private" not in answer.headers
    assert 1 == len(answer.headers.get_list("date"))


# Bodies


def test_a_large_answer_comes_whole(exposing: Server, page: str) -> None:
    assert exposing.get(expose(page, "/big")).content == b"0123456789abcdef" * (2 << 20)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_arrives_whole(exposing: Server, page: str, *, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(512):
            yield bytes(65536)

    content = pieces() if chunked else bytes(32 << 20)
    assert exposing.post(expose(page), content=content).text == str(32 << 20)


def test_an_upload_over_http_2_arrives_whole(exposing: Server, page: str) -> None:
    with exposing.client(http1=False, http2=True) as client:
        assert client.post(expose(page), content=bytes(1 << 20)).text == str(1 << 20)


def test_events_come_one_by_one(exposing: Server, page: str) -> None:
    with (
        exposing.client() as client,
        client.stream("GET", expose(page, "/events")) as answer,
    ):
        lines = answer.iter_lines()
        started = time.monotonic()
        found = [next(lines) for _ in range(3)]

    assert found == ["data: 0", "", "data: 1"]
    assert time.monotonic() - started < 10


def test_a_client_that_goes_frees_its_place(exposing: Server, page: str) -> None:
    for _ in range(20):  # more than may be open at the same time
        with exposing.client() as client, client.stream("GET", expose(page, "/events")) as answer:
            next(answer.iter_raw())


def test_requests_run_at_the_same_time(exposing: Server, page: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: exposing.get(expose(page, "/slow")), range(10)))

    assert {answer.text for answer in answers} == {"slow"}


def test_too_many_requests_are_refused(exposing: Server, page: str) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: exposing.get(expose(page, "/slow")), range(24)))

    assert {200, 429} == {answer.status_code for answer in answers}


# What goes wrong


def test_a_port_where_nothing_listens(exposing: Server, page: str) -> None:
    answer = exposing.get(expose(page, port=9), headers={"Accept": "text/html"})

    assert 502 == answer.status_code
    assert "port 9" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_an_error_is_json_for_those_who_ask_for_it(exposing: Server, page: str) -> None:
    answer = exposing.get(expose(page, port=9), headers={"Accept": "application/json"})

    assert "start a server" in answer.json()["error"]["remediation"].lower()


@pytest.mark.parametrize("path", ["/nonsense", "/long"])
def test_what_is_no_http_is_a_bad_gateway(exposing: Server, page: str, path: str) -> None:
    assert 502 == exposing.get(expose(page, path)).status_code


# Preview URLs


def test_a_minted_url_names_sandbox_and_expiry(exposing: Server, page: str) -> None:
    answer = exposing.post("/v1/preview", json={"sandbox": page, "port": PORT}).json()

    url = urlsplit(answer["url"])
    assert (url.scheme, url.netloc) == ("http", f"{page}.preview.test:8443")
    assert 3500 < answer["expires_unix"] - time.time() <= 3600
    found, _ = seen(at_host(exposing, page, f"{url.path}?{url.query}&x=1"))
    assert found == "/?x=1"


def test_every_wrong_token_has_its_answer(exposing: Server, page: str) -> None:
    other = exposing.create()
    good = token(exposing, page)
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    expected = {
        f"/?token={good}": 200,
        "/": 401,
        f"/?token={forged}": 401,
        f"/?token={token(exposing, page, expires_in_s=-2)}": 401,
        f"/?token={token(exposing, other)}": 403,
        f"/?token={token(exposing, page, 9)}": 502,
    }

    found = {path: at_host(exposing, page, path).status_code for path in expected}
    exposing.delete(f"/v1/sandboxes/{other}")

    assert found == expected


def test_a_token_may_be_a_bearer(exposing: Server, page: str) -> None:
    answer = at_host(exposing, page, "/x", Authorization=f"Bearer {token(exposing, page)}")

    found, headers = seen(answer)
    assert found == "/x"
    assert "authorization" not in headers


def test_a_browser_gets_a_session_instead_of_the_token(exposing: Server, page: str) -> None:
    first = at_host(exposing, page, f"/a?x=1&token={token(exposing, page)}", Accept="text/html,*/*")

    cookie = first.headers["set-cookie"]
    assert (302, "/a?x=1") == (first.status_code, first.headers["location"])
    assert {"Secure", "HttpOnly", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    session = cookie.partition(";")[0]
    found, headers = seen(at_host(exposing, page, "/style.css", Cookie=session))
    assert found == "/style.css"
    assert "cookie" not in headers


# Forwarded ports


def test_a_forwarded_port_leads_inside(exposing: Server, page: str) -> None:
    address = forward(exposing, page)
    for _ in range(2):
        connection = http.client.HTTPConnection(*address, timeout=DEADLINE_S)
        connection.request("GET", "/there")
        assert "/there" == json.loads(connection.getresponse().read())["path"]
        connection.close()


def test_a_forwarded_port_without_a_server_closes(exposing: Server, page: str) -> None:
    with socket.create_connection(forward(exposing, page, 9), timeout=DEADLINE_S) as connection:
        assert b"" == connection.recv(1)


def test_a_token_opens_the_expose_route_of_its_port_only(exposing: Server, page: str) -> None:
    def status(port: int) -> int:
        url = exposing.url + expose(page, f"/?token={token(exposing, page)}", port=port)
        return httpx.get(url, trust_env=False).status_code

    assert (200, 403) == (status(PORT), status(PORT + 1))
