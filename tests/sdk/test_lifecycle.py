"""Deadlines, pausing, preview addresses and the end of a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

import mitos
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import Answer, ScriptedServer, cut, envelope, page, reply


def test_set_timeout_gives_the_deadline(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("POST", "/v1/set_timeout", reply({"deadline_unix": 1_800_000_000}), reply({}))

    assert 1_800_000_000 == sdk.run(sandbox.set_timeout(600))
    assert 0 == sdk.run(sandbox.set_timeout(600))
    assert {"sandbox": "sb-1", "timeout_seconds": 600} == server.requests[0].json


def test_a_deadline_that_is_none_is_an_invalid_response(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", "/v1/set_timeout", reply({"deadline_unix": "soon"}))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.run(sandbox.set_timeout(600))


def test_zero_is_for_the_server_to_refuse(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("POST", "/v1/set_timeout", envelope(400, "invalid_input"))

    with pytest.raises(mitos.AgentRunError, match="invalid_input"):
        sdk.run(sandbox.set_timeout(0))


def test_pause_and_resume_return_nothing(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("POST", "/v1/pause", Answer(204))
    server.on("POST", "/v1/resume", reply({"status": "running"}))

    assert sdk.run(sandbox.pause()) is None
    assert sdk.run(sandbox.resume()) is None
    assert [{"sandbox": "sb-1"}] * 2 == [request.json for request in server.requests]


def test_get_host_gives_the_signed_address(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    url = "https://sb-1.preview.test/?token=t"
    server.on("POST", "/v1/preview", reply({"url": url, "expires_unix": 1}))

    assert url == sdk.run(sandbox.get_host(3000))
    assert url == sdk.run(sandbox.get_host())
    assert [3000, 80] == [request.json["port"] for request in server.requests]


@pytest.mark.parametrize("port", [0, -1, 65_536, 70_000, "80", 80.0, None, True])
def test_a_port_that_is_none_is_refused_before_any_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, port: Any
) -> None:
    with pytest.raises(ValueError, match="port"):
        sdk.run(sandbox.get_host(port))

    assert [] == server.requests


@pytest.mark.parametrize("answer", [{}, {"url": ""}, {"url": 7}])
def test_an_answer_without_an_address_is_a_value_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, answer: dict[str, Any]
) -> None:
    server.on("POST", "/v1/preview", reply(answer))

    with pytest.raises(ValueError, match="preview"):
        sdk.run(sandbox.get_host())


@pytest.mark.parametrize(
    "answer",
    [
        reply({"status": "terminated"}),
        Answer(204),
        envelope(404, "not_found"),
        envelope(401, "unauthorized"),
        envelope(500, "internal"),
        page("<html>"),
    ],
)
def test_terminate_ends_the_sandbox_or_finds_it_gone(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, answer: Answer
) -> None:
    server.on("DELETE", "/v1/sandboxes/sb-1", answer)

    assert sdk.run(sandbox.terminate()) is None
    assert sdk.run(sandbox.terminate()) is None
    assert 2 == len(server.requests)


def test_terminate_says_so_when_there_is_no_server(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("DELETE", "/v1/sandboxes/sb-1", cut())

    with pytest.raises(mitos.AgentRunError, match="connection_failed"):
        sdk.run(sandbox.terminate())


def test_calls_after_the_end_fail_as_the_server_says(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("DELETE", "/v1/sandboxes/sb-1", reply({}))
    server.on("POST", "/v1/pause", envelope(404, "not_found"))
    sdk.run(sandbox.terminate())

    with pytest.raises(mitos.NotFoundError):
        sdk.run(sandbox.pause())


def test_a_context_manager_terminates(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("DELETE", "/v1/sandboxes/sb-1", reply({}))

    async def use() -> None:
        async with sandbox as entered:
            assert entered is sandbox

    if sdk.is_async:
        sdk.run(use())
    else:
        with sandbox as entered:
            assert entered is sandbox

    assert ["DELETE"] == [request.method for request in server.requests]
