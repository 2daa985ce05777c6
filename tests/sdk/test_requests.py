"""Every request the SDK sends is one the published wire contract allows, sync and async.

A real server records what comes in while the SDK's whole surface is used. The tables below are the
contract's: members by route, messages by call. What goes beyond it is named as an addition.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sdk.conftest import Sdk
from tests.sdk.recorder import Recorded, Recorder
from tests.server.calling import SERVICE, envelopes
from tests.server.serving import Server
from tests.server.transport import SHAPES

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

MEMBERS = {
    ("POST", "/v1/templates"): {"id", "init_wait_seconds", "network", "workload", "resources"},
    ("POST", "/v1/fork"): {"template", "id", "region", "source"},
    ("POST", "/v1/sandboxes/*/fork"): {"id", "template", "pause_source"},
    ("POST", "/v1/set_timeout"): {"sandbox", "timeout_seconds"},
    ("POST", "/v1/pause"): {"sandbox"},
    ("POST", "/v1/resume"): {"sandbox"},
    ("POST", "/v1/preview"): {"sandbox", "port"},
    ("GET", "/v1/health"): set(),
    ("GET", "/v1/templates"): set(),
    ("GET", "/v1/sandboxes"): set(),
    ("DELETE", "/v1/sandboxes/*"): set(),
    ("GET", f"{SERVICE}/Exec"): set(),
}
ADDED_MEMBERS = {("POST", "/v1/sandboxes/*/fork"): {"ids"}}
HEADERS = {
    *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type"),
    *("content-length", "authorization", "x-sandbox-id", "idempotency-key"),
}
HANDSHAKE = {"upgrade", "origin", "sec-websocket-key", "sec-websocket-version"} | {
    "sec-websocket-protocol",
    "sec-websocket-extensions",
}
IDEMPOTENT = {"/v1/templates", "/v1/fork", "/v1/sandboxes/*/fork"}


def use_everything(sdk: Sdk, url: str) -> None:
    """One call of each kind."""
    run = sdk.run
    server = sdk.Server(url)
    run(server.health())
    run(server.create_template("base", resources={"vcpu_count": 1, "mem_size_mib": 256}))
    run(server.list_templates())
    sandbox = run(sdk.module.create("python", base_url=url, api_key="", region="eu"))
    run(server.list_sandboxes())
    run(sandbox.exec("echo hi", timeout=10))
    run(sandbox.run_code("1 + 1", timeout=10))
    run(sandbox.files.write("/tmp/a", "text"))
    run(sandbox.files.read("/tmp/a"))
    run(sandbox.files.list("/tmp"))
    run(sandbox.files.exists("/tmp/a"))
    run(sandbox.files.mkdir("/tmp/d"))
    run(sandbox.files.remove("/tmp/d"))
    terminal = run(sandbox.pty(cols=100, rows=30, on_data=lambda _: None))
    run(terminal.kill())
    run(sandbox.set_timeout(60))
    run(sandbox.pause())
    run(sandbox.resume())
    for child in run(sandbox.fork(2)):
        run(child.terminate())
    run(sandbox.terminate())


def test_every_request_is_one_the_contract_allows(
    sdk: Sdk, observed: Server, recorder: Recorder
) -> None:
    recorder.requests.clear()

    use_everything(sdk, observed.url)

    assert len(recorder.requests) > 20
    for request in recorder.requests:
        check_headers(request)
        if request.method == "POST" and request.path.startswith(f"{SERVICE}/"):
            check_runtime_call(request)
        else:
            check_control_call(request)


def test_a_create_can_be_repeated_and_an_exec_is_never(
    sdk: Sdk, observed: Server, recorder: Recorder
) -> None:
    recorder.requests.clear()

    use_everything(sdk, observed.url)

    keyed = [
        request.route[1] for request in recorder.requests if "idempotency-key" in request.headers
    ]
    assert {"/v1/fork", "/v1/sandboxes/*/fork"} <= set(keyed) <= IDEMPOTENT


def check_headers(request: Recorded) -> None:
    """Nothing a published server does not know, no half-known Connect header."""
    is_upgrade = "upgrade" in request.headers
    assert set(request.headers) <= HEADERS | (HANDSHAKE if is_upgrade else set())
    if request.body:
        assert str(len(request.body)) == request.headers["content-length"]


def check_control_call(request: Recorded) -> None:
    """A known route with known members."""
    assert request.route in MEMBERS
    members = set(json.loads(request.body)) if request.body else set()
    assert members <= MEMBERS[request.route] | ADDED_MEMBERS.get(request.route, set())


def check_runtime_call(request: Recorded) -> None:
    """A known call whose messages the published schema reads, every member of them."""
    rpc = request.path.removeprefix(f"{SERVICE}/")
    kind, _, streams = SHAPES[rpc]
    assert request.headers["x-sandbox-id"]
    expected = "application/connect+json" if streams else "application/json"
    assert expected == request.headers["content-type"]
    messages: list[Any] = [request.body]
    if streams:
        frames = envelopes(request.body)
        assert {flags for flags, _ in frames} == {0}
        messages = [payload for _, payload in frames]
    for message in messages:
        kind.from_json(message.decode())  # fails on an unknown member
