"""A page that a user has open cannot use the user's server: shown with a real browser.

The page is on another port, on another name, on a name that is made to lead to the server (DNS
rebinding), and on a sandbox of the server itself. Each is looked at from outside too: the server's
log has every request it made, all refused, and nothing was made, ended or changed.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import mitos
from tests.integration import attack
from tests.integration.attack import Relay, page_server
from tests.integration.chromium import Page, browser
from tests.integration.conftest import Server, serve
from tests.server.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

KEY = "mitos_live_0123456789abcdef"
PORT = 8000
ALL_TRIES = 110
"""About so many requests the page tries; fewer would mean that it broke off."""


@dataclass(frozen=True)
class Target:
    """A server with a sandbox that a page would like to reach."""

    server: Server
    key: str
    sandbox: mitos.DirectSandbox

    @property
    def port(self) -> int:
        return urlsplit(self.server.url).port or 80

    def listing(self) -> tuple[list[dict[str, Any]], str]:
        """Every sandbox there is; and the number of this request, once it is in the log."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        answer = httpx.get(f"{self.server.url}/v1/sandboxes", headers=headers, trust_env=False)
        number = answer.raise_for_status().headers["x-request-id"]
        until(lambda: any(row["request"] == number for row in self.log()))
        return list(answer.json()), number

    def log(self) -> list[dict[str, str]]:
        """Every request so far, as the log has it."""
        lines = self.server.log.read_text().splitlines()
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines if " request=" in line]

    def log_between(self, first: str, last: str) -> list[dict[str, str]]:
        """The requests that ended between two others."""
        rows = self.log()
        numbers = [row["request"] for row in rows]
        return rows[numbers.index(first) + 1 : numbers.index(last)]


@pytest.fixture(scope="module")
def console() -> Iterator[Relay]:
    """A site of the user's own that may call the server with the key."""
    with page_server() as relay:
        yield relay


@pytest.fixture(scope="module")
def keyed_server(
    home: Path, tmp_path_factory: pytest.TempPathFactory, console: Relay
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    own_home = folder / "home"
    own_home.mkdir()
    for name in ("bin", "rootfs"):
        (own_home / name).symlink_to((home / name).resolve())
    options = ["--api-key-file", str(folder / "key"), "--engine", "gvisor", "--prepare", "python"]
    options += ["--allow-origin", f"http://127.0.0.1:{console.port}"]
    with serve(own_home, folder / "server.log", *options) as running:
        yield running


@pytest.fixture(params=["without a key", "with a key"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    is_keyed = request.param == "with a key"
    running: Server = request.getfixturevalue("keyed_server" if is_keyed else "server")
    key = KEY if is_keyed else ""
    with mitos.create("python", base_url=running.url, api_key=key) as sandbox:
        sandbox.files.write("/workspace/site/index.html", attack.PAGE)
        sandbox.exec(f"cd site && nohup python3 -m http.server {PORT} >/tmp/log 2>&1 &")
        ready = f"until curl -sf 127.0.0.1:{PORT}/ >/dev/null; do sleep 0.05; done"
        assert sandbox.exec(ready, timeout=20).exit_code == 0
        yield Target(running, key, sandbox)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser for which every name under evil.example leads to this machine."""
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    with browser(tmp_path / "profile", rules) as opened:
        yield opened


def show(page: Page, url: str) -> None:
    page.open(url)
    page.wait_for("document.title", "page")


def attacked(page: Page, target: Target, api: str) -> list[dict[str, str]]:
    """Lets the page try everything; the requests that reached the server meanwhile.

    None of them was served, as the page sees it, and the sandbox and the listing are as before.
    """
    before, first = target.listing()
    call = f"attack({json.dumps(api)}, {json.dumps(target.sandbox.id)})"
    found = page.result(call)
    after, last = target.listing()

    assert found["served"] == []
    assert found["tried"] > ALL_TRIES
    assert before == after
    assert target.sandbox.exec("ls -d /tmp/owned").exit_code != 0
    return [row for row in target.log_between(first, last) if row["op"] != "preview"]


def check_all_refused(requests: list[dict[str, str]], statuses: set[str]) -> None:
    """Every request was refused; and there are so many that nothing else stopped them."""
    for row in requests:  # a Connect stream tells a wrong key in its last message
        assert row["status"] in statuses or row["code"] == "unauthorized", row
    ways = {(row["method"], row["op"]) for row in requests}
    assert {
        ("GET", "/v1/sandboxes"),
        ("POST", "/v1/fork"),
        ("POST", "/v1/sandboxes/*/hibernate"),
        ("WEBSOCKET", "/sandbox.v1.Sandbox/Exec"),
        ("WEBSOCKET", "/v1/pty"),
        ("WEBSOCKET", "/v1/sandboxes/*/expose"),
        ("POST", "/sandbox.v1.Sandbox/ExecStream"),
    } <= ways
    assert len(requests) > 60


@pytest.mark.parametrize("page_host", ["127.0.0.1", "evil.example"])
@pytest.mark.parametrize("api_host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_site_is_refused(
    page: Page, target: Target, page_host: str, api_host: str
) -> None:
    with page_server() as site:
        show(page, f"http://{page_host}:{site.port}/")
        requests = attacked(page, target, f"http://{api_host}:{target.port}")

    check_all_refused(requests, {"403"})


def test_a_name_that_is_made_to_lead_here_is_refused(page: Page, target: Target) -> None:
    """To the browser the requests are same-origin: nothing but the server can refuse them."""
    with page_server() as site:
        show(page, f"http://evil.example:{site.port}/")
        site.rebind(target.port)
        requests = attacked(page, target, f"http://evil.example:{site.port}")

    check_all_refused(requests, {"401"} if target.key else {"403"})
    assert ("DELETE", "/v1/sandboxes/*") in {(row["method"], row["op"]) for row in requests}


@pytest.mark.parametrize("api_host", ["127.0.0.1", "localhost"])
def test_a_page_of_a_sandbox_on_its_preview_host_is_refused(
    page: Page, target: Target, api_host: str
) -> None:
    show(page, target.sandbox.get_host(PORT))
    assert page.value("location.hostname") == f"{target.sandbox.id}.localhost"

    requests = attacked(page, target, f"http://{api_host}:{target.port}")

    check_all_refused(requests, {"403"})


def test_a_page_of_a_sandbox_cannot_reach_the_api_through_its_own_host(
    page: Page, target: Target
) -> None:
    """There is no API on a preview host: such paths are the sandbox's own."""
    url = target.sandbox.get_host(PORT)
    show(page, url)
    before, _ = target.listing()

    found = page.result("fetch('/v1/sandboxes').then(answer => answer.status)")

    assert (found, before) == (404, target.listing()[0])


def test_a_page_of_a_sandbox_on_the_apis_own_origin_is_refused(page: Page, target: Target) -> None:
    """Without a key it has no origin any more; with a key it lacks the key."""
    path = f"/v1/sandboxes/{target.sandbox.id}/expose/{PORT}/"
    token = urlsplit(target.sandbox.get_host(PORT)).query
    show(page, f"{target.server.url}{path}?{token}")
    assert page.value("self.origin") == (target.server.url if target.key else "null")

    requests = attacked(page, target, target.server.url)

    check_all_refused(requests, {"401"} if target.key else {"403"})


# What works as before


OWN_PAGE = """
(async () => {
  const headers = {'Content-Type': 'application/json', ...KEY_HEADER}
  const body = JSON.stringify({template: 'python', id: 'made-by-the-page'})
  const made = await fetch(API + '/v1/fork', {method: 'POST', headers, body})
  const listed = await fetch(API + '/v1/sandboxes', {headers})
  const ended = await fetch(API + '/v1/sandboxes/made-by-the-page', {method: 'DELETE', headers})
  const run = await fetch(API + '/sandbox.v1.Sandbox/Mkdir', {
    method: 'POST', headers: {...headers, 'X-Sandbox-Id': SANDBOX}, body: '{"path": "/tmp/made"}'})
  return [made.status, listed.status, ended.status, run.status]
})()
"""


def use(page: Page, target: Target, api: str) -> object:
    """What a page gets that uses the server as it should, with the key where there is one."""
    header = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    script = OWN_PAGE.replace("KEY_HEADER", json.dumps(header)).replace("API", json.dumps(api))
    return page.result(script.replace("SANDBOX", json.dumps(target.sandbox.id)))


def test_the_servers_own_origin_works(page: Page, target: Target) -> None:
    for host in ("127.0.0.1", "localhost"):
        page.open(f"http://{host}:{target.port}/healthz")
        page.wait_for("document.body?.innerText.startsWith('ok')", expected=True)
        assert use(page, target, f"http://{host}:{target.port}") == [200] * 4
    if not target.key:  # a browser cannot send a key with a WebSocket
        opened = page.result(
            "new Promise(resolve => {"
            f"const socket = new WebSocket(`ws://${{location.host}}/v1/pty?sandbox={target.sandbox.id}`,"
            "['mitos.pty.v1']); socket.onopen = () => resolve('open');"
            "socket.onerror = () => resolve('error')})"
        )
        assert opened == "open"


def test_a_configured_origin_works_with_the_key(
    page: Page, keyed_server: Server, console: Relay
) -> None:
    with mitos.create("python", base_url=keyed_server.url, api_key=KEY) as sandbox:
        target = Target(keyed_server, KEY, sandbox)
        show(page, f"http://127.0.0.1:{console.port}/")
        with_key = use(page, target, keyed_server.url)
        without = page.result(
            f"fetch({json.dumps(keyed_server.url)} + '/v1/sandboxes').then(a => a.status)"
        )

    assert (with_key, without) == ([200] * 4, 401)


def test_curl_works_and_is_told_what_it_forgot(server: Server) -> None:
    body = '{"template": "python", "id": "made-by-curl"}'

    def curl(*options: str) -> dict[str, Any]:
        argv = ["curl", "-sS", "--noproxy", "*", *options]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        return dict(json.loads(done.stdout))

    forgot = curl(f"{server.url}/v1/fork", "-d", body)
    made = curl(f"{server.url}/v1/fork", "-H", "Content-Type: application/json", "-d", body)
    ended = curl("-X", "DELETE", f"{server.url}/v1/sandboxes/made-by-curl")

    assert forgot["error"]["code"] == "invalid_json"
    assert "-H 'Content-Type: application/json'" in forgot["error"]["remediation"]
    assert (made["id"], ended["status"]) == ("made-by-curl", "terminated")


def test_the_sdk_works_by_name_and_by_address(server: Server) -> None:
    port = urlsplit(server.url).port
    for host in ("127.0.0.1", "localhost"):
        with mitos.create("python", base_url=f"http://{host}:{port}", api_key="") as sandbox:
            assert sandbox.exec("echo hi").stdout == "hi\n"
            terminal = sandbox.pty(lambda _: None)
            terminal.send_input(b"exit 3\n")
            assert terminal.wait(20) == 3
