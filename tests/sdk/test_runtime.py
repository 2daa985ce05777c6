"""The runtime half by itself: an endpoint, a sandbox's id and a token are all that it needs."""

from __future__ import annotations

from typing import Any

import pytest

import mitos
from mitos._sdk.framing import encode_bytes
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import DEADLINE_S, ScriptedServer, reply, stream

DONE = {"exit": {"exitCode": 0, "execTimeMs": 1.0}}


def said(text: str) -> dict[str, str]:
    return {"stdout": encode_bytes(text.encode())}


def runtime_of(sdk: Sdk, url: str, token: str | None = KEY) -> Any:
    prefix = "Async" if sdk.is_async else ""
    http = getattr(sdk.inside("http"), f"{prefix}Http")(url, token, timeout_s=DEADLINE_S)
    return getattr(sdk.inside("runtime"), f"{prefix}Runtime")(http, "sb-1")


@pytest.fixture
def runtime(sdk: Sdk, server: ScriptedServer) -> Any:
    return runtime_of(sdk, server.url)


def test_every_kind_of_call_names_the_sandbox_and_carries_the_token(
    sdk: Sdk, runtime: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream(said("hi"), DONE))
    server.on_call("RunCodeStream", stream({"result": {"text": "42"}}, {"exitCode": 0}))
    server.on_call("ReadFile", stream({"data": encode_bytes(b"draft")}))
    server.on_call("Mkdir", reply({}))

    assert "hi" == sdk.run(runtime.exec("echo hi")).stdout
    assert "42" == sdk.run(runtime.run_code("6 * 7")).text
    assert "draft" == sdk.run(runtime.files.read("/workspace/plan.txt"))
    assert sdk.run(runtime.files.mkdir("/workspace/a")) is None
    process = sdk.run(runtime.exec_background("serve"))
    assert "hi" == sdk.run(process.wait(DEADLINE_S)).stdout
    assert 5 == len(server.requests)
    assert {("sb-1", f"Bearer {KEY}")} == {
        (request.headers["x-sandbox-id"], request.headers["authorization"])
        for request in server.requests
    }


def test_commands_are_listed_and_found_again(
    sdk: Sdk, runtime: Any, server: ScriptedServer
) -> None:
    server.on(
        "GET", "/v1/sandboxes/sb-1/commands", reply([{"id": "cmd-1", "command": "x", "pid": 7}])
    )
    server.on_call("ExecStream", stream(said("again"), DONE))

    (row,) = sdk.run(runtime.commands())
    process = sdk.run(runtime.command(row.id))

    assert "again" == sdk.run(process.wait(DEADLINE_S)).stdout


def test_a_terminal_s_address_needs_no_more(sdk: Sdk) -> None:
    runtime = runtime_of(sdk, "https://node-7.test", None)

    assert "wss://node-7.test/sandbox.v1.Sandbox/Exec?sandbox=sb-1" == runtime.pty_url()


def test_it_has_no_calls_of_the_direct_half(runtime: Any) -> None:
    published = {"create", "fork", "terminate", "pause", "checkpoint", "promote", "get_host"}

    assert published <= set(dir(mitos.DirectSandbox))
    assert set() == published & set(dir(runtime))


def test_what_it_is_made_of_follows_a_new_id(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    """A promoted sandbox has another id; what was fetched from the handle before goes on."""
    row = {"id": "up", "template_id": "t", "endpoint": "", "fork_time_ms": 1}
    server.on("POST", "/v1/sandboxes/sb-1/promote", reply(row))
    server.on_call("Mkdir", reply({}))
    server.on_call("ExecStream", stream(DONE))
    files = sandbox.files

    sdk.run(sandbox.promote())
    sdk.run(files.mkdir("/a"))
    sdk.run(sandbox.exec("true"))

    assert ["up", "up"] == [request.headers["x-sandbox-id"] for request in server.requests[1:]]
    assert ("up", True) == (sandbox.id, "sandbox=up" in sandbox.pty_url())
