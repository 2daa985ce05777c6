"""Live forks: one request for all children, one by one for servers that only know that."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import mitos
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import Request, ScriptedServer, descriptor, envelope, reply

ROUTE = "/v1/sandboxes/sb-1/fork"


def fork_one(request: Request) -> Any:
    """A server that knows nothing but the published body."""
    return reply(descriptor(request.json["id"]))


def fork_all(request: Request) -> Any:
    """A server that makes all children from one instant."""
    answer = descriptor(request.json["id"])
    if ids := request.json.get("ids"):
        answer["children"] = [descriptor(each) for each in ids]
    return reply(answer)


def test_one_child_is_asked_for_as_published(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", ROUTE, fork_all)

    (child,) = sdk.run(sandbox.fork())

    (request,) = server.requests
    assert {"id": child.id, "template": "python", "pause_source": True} == request.json
    assert isinstance(child, sdk.Sandbox)
    assert child.id != sandbox.id


def test_all_children_come_from_one_request(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("POST", ROUTE, fork_all)

    children = sdk.run(sandbox.fork(3))

    ids = [child.id for child in children]
    (request,) = server.requests
    assert 3 == len(set(ids))
    assert {"id": ids[0], "template": "python", "pause_source": True, "ids": ids} == request.json


def test_a_server_that_makes_one_at_a_time_is_asked_for_each(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", ROUTE, fork_one)

    children = sdk.run(sandbox.fork(3, id="kid"))

    assert ["kid-0", "kid-1", "kid-2"] == [child.id for child in children]
    assert ["kid-0", "kid-1", "kid-2"] == [request.json["id"] for request in server.requests]
    assert [True, False, False] == ["ids" in request.json for request in server.requests]
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert 3 == len(keys)


def test_ids_follow_the_given_one(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on("POST", ROUTE, fork_all)

    assert ["kid"] == [child.id for child in sdk.run(sandbox.fork(1, id="kid"))]
    assert ["kid-0", "kid-1"] == [child.id for child in sdk.run(sandbox.fork(2, id="kid"))]


@pytest.mark.parametrize("n", [0, -1])
def test_no_children_need_no_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, n: int
) -> None:
    assert [] == sdk.run(sandbox.fork(n))
    assert [] == server.requests


def test_children_carry_key_and_server(sdk: Sdk, server: ScriptedServer) -> None:
    server.on("POST", ROUTE, fork_all)
    server.on("POST", "/v1/pause", reply({}))

    (child,) = sdk.run(sdk.handle(server.url, KEY).fork())
    sdk.run(child.pause())

    assert f"Bearer {KEY}" == server.requests[-1].headers["authorization"]
    assert {"sandbox": child.id} == server.requests[-1].json


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_the_route_is_asked_on_the_older_one(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, status: int
) -> None:
    if status != 404:
        server.on("POST", ROUTE, envelope(status, "internal"))

    children = sdk.run(sandbox.fork(2, id="kid"))

    assert ["kid-0", "kid-1"] == [child.id for child in children]
    older = server.sent("/v1/fork")
    expected = [{"template": "python", "id": each, "source": "sb-1"} for each in ("kid-0", "kid-1")]
    assert expected == [request.json for request in older]


def test_a_missing_sandbox_is_not_a_missing_route(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", ROUTE, envelope(404, "not_found", message="no sandbox sb-1 on this route"))

    with pytest.raises(mitos.NotFoundError):
        sdk.run(sandbox.fork())

    assert [] == server.sent("/v1/fork")


def test_a_fork_that_fails_in_the_middle_leaves_none(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", ROUTE, fork_one, fork_one, envelope(429, "quota_exceeded"))
    for child in ("kid-0", "kid-1"):
        server.on("DELETE", f"/v1/sandboxes/{child}", reply({}))

    with pytest.raises(mitos.AgentRunError, match="quota_exceeded"):
        sdk.run(sandbox.fork(3, id="kid"))

    ended = [request.path for request in server.requests if request.method == "DELETE"]
    assert ["/v1/sandboxes/kid-0", "/v1/sandboxes/kid-1"] == ended


@pytest.mark.parametrize(
    "children", [[{}], [7], [{"id": "x"}], [descriptor("../up")], [descriptor("a")] * 3]
)
def test_children_of_another_form_are_an_invalid_response(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, children: Any
) -> None:
    server.on("POST", ROUTE, reply({**descriptor("a"), "children": children}))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.run(sandbox.fork(2))


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout])
def test_a_fork_that_does_not_answer_in_time_is_unavailable(
    sdk: Sdk, error: type[httpx.TimeoutException]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("late", request=request)

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sdk.mocked(answer).fork())

    assert "fork_unavailable" == caught.value.code
    assert "retry" in caught.value.remediation
    assert "backoff" in caught.value.remediation
    assert isinstance(caught.value.__cause__, error)
