"""Templates with a workload: a server that runs in every sandbox from its first instant."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mitos
from mitos.errors import AgentRunError
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SERVE = """
import http.server, os, sys, time
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        ready = self.path == "/health" and Handler.asked > 2
        self.send_response(204 if ready else 503)
        self.end_headers()
        print("asked", Handler.asked, os.environ["COLOUR"], flush=True)
    def log_message(self, *parts):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""

GET = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8000/health"]


@pytest.fixture(autouse=True)
def plain_template(server: Server) -> Iterator[None]:
    """The next test finds the template as it was."""
    yield
    mitos.SandboxServer(server.url).create_template("python")


def workload(program: str = SERVE, **ready: Any) -> dict[str, Any]:
    return {
        "command": ["python3", "-u", "-c", program],
        "env": {"COLOUR": "green"},
        **({"ready": ready} if ready else {}),
    }


def build(server: Server, asked: dict[str, Any]) -> None:
    mitos.SandboxServer(server.url).create_template("python", workload=asked)


def test_the_program_serves_in_every_sandbox_from_the_start(server: Server) -> None:
    asked = workload(port=8000, path="/health", expect=204)
    with mitos.create("python", base_url=server.url, api_key="", workload=asked) as first:
        answers = [first.exec(GET).stdout]
        (child,) = first.fork()
        with child, mitos.SandboxServer(server.url).fork("python") as second:
            answers += [second.exec(GET).stdout, child.exec(GET).stdout]
            said = bytearray()
            complete = threading.Event()

            def on_stdout(piece: bytes) -> None:
                said.extend(piece)
                if said.count(b"\n") == 4:
                    complete.set()

            second.command("workload", on_stdout=on_stdout)
            assert complete.wait(30), said

    assert answers == ["204", "204", "204"]
    assert said.decode() == "".join(f"asked {number} green\n" for number in (1, 2, 3, 4))


def test_a_program_without_a_check_is_given_its_time(server: Server) -> None:
    build(server, workload("import time\nwhile True: time.sleep(0.1); print('tick')"))
    with mitos.SandboxServer(server.url).fork("python") as sandbox:
        (command,) = sandbox.commands()
        assert (command.id, command.running) == ("workload", True)
        assert sandbox.run_code("1 + 1").text == "2"


def test_a_program_that_goes_on_in_the_background_is_fine(server: Server) -> None:
    asked = workload("import os; os.fork() or os.execvp('sleep', ['sleep', '86400'])")
    started = time.monotonic()
    build(server, asked)

    assert time.monotonic() - started < 60
    with mitos.SandboxServer(server.url).fork("python") as sandbox:
        assert "sleep" in sandbox.exec("ps -e").stdout


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (workload("print('no luck'); raise SystemExit(3)"), ["exit code 3", "no luck"]),
        (workload("raise SystemExit(3)", port=8000), ["exit code 3"]),
        ({"command": ["/no/such/program"]}, ["No such file"]),
        (
            workload("print('busy'); import time; time.sleep(999)", port=8000, timeout_seconds=1),
            ["GET / on port 8000", "busy"],
        ),
        (workload(port=8000, path="/", timeout_seconds=2), ["200 within 2 s, but with: 503"]),
    ],
)
def test_a_program_that_does_not_start_fails_the_template(
    server: Server, asked: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(AgentRunError) as caught:
        build(server, asked)

    assert (caught.value.code, caught.value.status) == ("build_failed", 422)
    assert caught.value.context["step_kind"] == "workload"
    assert all(text in caught.value.cause for text in says), caught.value.cause
    assert not list((server.home / "snapshots").glob("building-*"))


def test_the_last_one_who_asks_says_what_runs(server: Server) -> None:
    build(server, workload("import time; time.sleep(86400)"))
    with server.create() as sandbox:
        assert sandbox.commands() == []


@pytest.mark.parametrize(
    "asked",
    [
        {"command": "python3"},
        {"command": ["a", 1]},
        {"command": ["a\0"]},
        {"command": ["a"], "env": {"A=B": "c"}},
        {"command": ["a"], "env": {"A": 1}},
        {"command": ["a"], "ready": {"port": 0}},
        {"command": ["a"], "ready": {"port": "80"}},
        {"command": ["a"], "ready": {"port": 80, "path": "/ HTTP/1.1\r\nX: y"}},
        {"command": ["a"], "ready": {"port": 80, "expect": 99}},
        {"command": ["a"], "ready": {"port": 80, "timeout_seconds": 1801}},
        {"command": ["a"] * 257},
    ],
)
def test_a_bad_workload_is_refused(server: Server, asked: dict[str, Any]) -> None:
    with pytest.raises(AgentRunError) as caught:
        build(server, asked)

    assert caught.value.code == "invalid_input"
    assert "workload" in str(caught.value)


def test_a_module_that_cannot_be_preloaded_fails_the_template(server: Server) -> None:
    records = [json.loads(file.read_text()) for file in (server.home / "rootfs").glob("*.json")]
    key = next(record["key"] for record in records if record["name"] == "python")
    built = server.home / "rootfs" / key
    configuration = server.home / "templates.toml"
    configuration.write_text(f'[templates.odd]\nrootfs = "{built}"\npreload = ["no_such_module"]\n')
    try:
        with pytest.raises(AgentRunError) as caught:
            mitos.SandboxServer(server.url).create_template("odd")
    finally:
        configuration.unlink()

    assert caught.value.context["step_kind"] == "preload"
    assert "no_such_module" in caught.value.cause
