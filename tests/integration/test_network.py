"""Outgoing traffic of real sandboxes, as their posture allows."""

from __future__ import annotations

import http.server
import io
import secrets
import subprocess
import threading
import zipfile
from collections.abc import Iterator

import pytest

import mitos
import mitos.types
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

ADDRESS = "10.77.0.1"


WHEEL = "tinypack-1.0-py3-none-any.whl"


def _wheel() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        info = "tinypack-1.0.dist-info"
        files.writestr("tinypack.py", "X = 42\n")
        files.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\n")
        files.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        files.writestr(f"{info}/RECORD", "")
    return archive.getvalue()


_PAGES = {
    "/simple/tinypack/": f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(),
    f"/{WHEEL}": _wheel(),
}


class Host(http.server.ThreadingHTTPServer):
    """A web server on an address of this machine; remembers who came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), _Handler)
        self.paths: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Host)
        self.server.paths.append(self.path)
        body = _PAGES.get(self.path, b"hello from outside")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    device = ["dev", "lo"]
    subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", *device], check=True)
    try:
        with Host() as running:
            thread = threading.Thread(target=running.serve_forever)
            thread.start()
            yield running
            running.shutdown()
            thread.join()
    finally:
        subprocess.run(["ip", "addr", "del", f"{ADDRESS}/32", *device], check=True)


@pytest.fixture
def allowed(server: Server, host: Host) -> Iterator[mitos.DirectSandbox]:
    """A sandbox that may reach the host's address and nothing else."""
    client = mitos.SandboxServer(server.url)
    client.create_template("python", network=mitos.types.Network(allow_cidrs=[f"{ADDRESS}/32"]))
    try:
        with client.fork("python", f"net-{secrets.token_hex(4)}") as created:
            yield created
    finally:
        client.create_template("python")


def test_plain_http_connect_and_socks_reach_an_allowed_address_also_in_a_fork(
    allowed: mitos.DirectSandbox, host: Host
) -> None:
    url = f"http://{ADDRESS}:{host.server_port}"
    (child,) = allowed.fork(1)
    with child:
        for sandbox in (allowed, child):
            for option in ("", "-p", "--noproxy '' --proxy socks5h://127.0.0.1:3128"):
                result = sandbox.exec(f"curl -sS -m 20 {option} {url}/page")
                assert (result.exit_code, result.stdout) == (0, "hello from outside"), result


@pytest.mark.parametrize(
    "name",
    [
        *("127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::ffff:127.0.0.1]"),
        *("169.254.169.254", "[::1]", "LOCALHOST.", "[::ffff:7f00:1]", "0.0.0.0", "0"),
    ],
)
def test_no_spelling_leads_to_this_machine(
    allowed: mitos.DirectSandbox, host: Host, name: str
) -> None:
    host.paths.clear()
    code = (
        "import http.client\n"
        "c = http.client.HTTPConnection('127.0.0.1', 3128, timeout=20)\n"
        f"c.request('GET', 'http://{name}:{host.server_port}/secret')\n"
        "r = c.getresponse(); print(r.status, r.read().decode())\n"
    )
    allowed.files.write("/tmp/bypass.py", code)

    answer = allowed.exec("python3 /tmp/bypass.py")
    assert answer.stdout.startswith("403 mitos: egress denied"), answer
    assert host.paths == []


def test_pip_installs_from_an_allowed_index(allowed: mitos.DirectSandbox, host: Host) -> None:
    index = f"http://{ADDRESS}:{host.server_port}/simple/"
    result = allowed.exec(
        f"pip install --no-deps --break-system-packages --index-url {index} "
        f"--trusted-host {ADDRESS} tinypack && python3 -c 'import tinypack; print(tinypack.X)'",
        timeout=120,
    )
    assert (result.exit_code, result.stdout.splitlines()[-1:]) == (0, ["42"]), result


def test_a_sandbox_without_egress_has_no_proxy(sandbox: mitos.DirectSandbox) -> None:
    assert sandbox.exec('echo "[$HTTP_PROXY]"').stdout == "[]\n"
    assert sandbox.exec("curl -s -m 5 -x http://127.0.0.1:3128 http://example.com/").exit_code != 0
