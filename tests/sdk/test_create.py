"""Starting sandboxes: which requests go out, and what comes back."""

from __future__ import annotations

import re
from typing import Any

import pytest

import mitos
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import ScriptedServer, descriptor, envelope, reply

BAD_IDS = ["bad id!", "../x", "-x", "", "a" * 65, "a\n", "ä", "a/b"]


def test_create_asks_for_the_template_then_forks_it(sdk: Sdk, server: ScriptedServer) -> None:
    sandbox = sdk.create(server, image="python", api_key=KEY)

    template, fork = server.requests
    assert ("POST", "/v1/templates") == (template.method, template.path)
    assert {"id": "python", "init_wait_seconds": 5} == template.json
    assert "idempotency-key" not in template.headers
    assert ("POST", "/v1/fork") == (fork.method, fork.path)
    assert {"template": "python", "id": sandbox.id} == fork.json
    assert isinstance(sandbox, sdk.Sandbox)
    assert ("python", "10.0.0.1:9000", 12.345) == (
        sandbox.template,
        sandbox.endpoint,
        sandbox.fork_time_ms,
    )


def test_the_classmethod_is_the_same(sdk: Sdk, server: ScriptedServer) -> None:
    sandbox = sdk.run(sdk.Sandbox.create("node", "", server.url, "mine"))

    assert ("mine", "node") == (sandbox.id, server.requests[0].json["id"])


def test_sandbox_create_gives_a_direct_sandbox(server: ScriptedServer) -> None:
    sandbox = mitos.Sandbox.create("python", base_url=server.url, api_key="")

    assert isinstance(sandbox, mitos.DirectSandbox)
    mitos.close_http_pools()


def test_every_request_carries_the_key(sdk: Sdk, server: ScriptedServer) -> None:
    sandbox = sdk.create(server, api_key=KEY)
    server.on("DELETE", f"/v1/sandboxes/{sandbox.id}", reply({"status": "terminated"}))
    server.on_call("List", reply({}))

    sdk.run(sandbox.files.list("/"))
    sdk.run(sandbox.terminate())

    assert [f"Bearer {KEY}"] * 4 == [each.headers.get("authorization") for each in server.requests]


def test_without_a_key_there_is_no_authorization(sdk: Sdk, server: ScriptedServer) -> None:
    sandbox = sdk.create(server, api_key=None)
    server.on_call("List", reply({}))

    sdk.run(sandbox.files.list("/"))

    assert 3 == len(server.requests)
    assert all("authorization" not in each.headers for each in server.requests)


def test_white_space_around_a_key_is_not_sent(sdk: Sdk, server: ScriptedServer) -> None:
    sdk.create(server, api_key=f" {KEY}\n")

    assert f"Bearer {KEY}" == server.requests[0].headers["authorization"]


def test_the_environment_names_server_and_key(
    sdk: Sdk, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MITOS_BASE_URL", server.url + "/")
    monkeypatch.setenv("MITOS_API_KEY", KEY)

    sdk.run(sdk.module.create())

    assert ["/v1/templates", "/v1/fork"] == [each.path for each in server.requests]
    assert f"Bearer {KEY}" == server.requests[1].headers["authorization"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_bad_id_is_refused_before_any_request(sdk: Sdk, server: ScriptedServer, bad: str) -> None:
    at_server = sdk.Server(server.url)
    for attempt in (
        lambda: sdk.create(server, id=bad),
        lambda: sdk.run(at_server.fork("python", bad)),
        lambda: sdk.run(sdk.handle(server.url).fork(1, bad)),
        lambda: sdk.run(at_server.connect(bad)),
        lambda: sdk.handle(server.url, sandbox_id=bad),
    ):
        with pytest.raises(mitos.AgentRunError) as caught:
            attempt()
        assert "invalid_sandbox_id" == caught.value.code
        assert "[A-Za-z0-9]" in caught.value.cause
        assert caught.value.remediation

    assert [] == server.requests


def test_a_suffix_that_makes_an_id_too_long_is_refused(sdk: Sdk, server: ScriptedServer) -> None:
    with pytest.raises(mitos.AgentRunError, match="invalid_sandbox_id"):
        sdk.run(sdk.handle(server.url).fork(2, "a" * 64))

    assert [] == server.requests


@pytest.mark.parametrize("good", ["a", "0", "A_b-c", "x" * 64])
def test_a_good_id_is_used_as_it_is(sdk: Sdk, server: ScriptedServer, good: str) -> None:
    assert good == sdk.create(server, id=good).id


def test_a_generated_id_has_the_published_form(sdk: Sdk, server: ScriptedServer) -> None:
    ids = {sdk.create(server).id for _ in range(3)}

    assert 3 == len(ids)
    assert all(re.fullmatch("sandbox-[0-9a-f]{8}", each) for each in ids)


def test_a_template_that_exists_already_is_fine(sdk: Sdk, server: ScriptedServer) -> None:
    server.on("POST", "/v1/templates", envelope(409, "conflict"))

    assert sdk.create(server, id="mine").id == "mine"
    answer = sdk.run(sdk.Server(server.url).ensure_template("python"))
    assert {"id": "python", "ready": True} == answer


def test_create_template_itself_reports_the_conflict(sdk: Sdk, server: ScriptedServer) -> None:
    server.on("POST", "/v1/templates", envelope(409, "conflict"))

    with pytest.raises(mitos.AgentRunError, match="conflict"):
        sdk.run(sdk.Server(server.url).create_template("python"))


def test_a_template_that_fails_ends_the_create(sdk: Sdk, server: ScriptedServer) -> None:
    context = {"step": 2, "step_kind": "run"}
    server.on("POST", "/v1/templates", envelope(422, "build_failed", context=context))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.create(server)

    assert ("build_failed", 422, context) == (
        caught.value.code,
        caught.value.status,
        caught.value.context,
    )
    assert [] == server.sent("/v1/fork")


def test_each_fork_has_an_idempotency_key_of_its_own(sdk: Sdk, server: ScriptedServer) -> None:
    sdk.create(server)
    sdk.create(server)

    keys = [request.headers["idempotency-key"] for request in server.sent("/v1/fork")]
    assert 2 == len(set(keys))
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)


def test_a_caller_s_idempotency_key_goes_on_the_fork_only(sdk: Sdk, server: ScriptedServer) -> None:
    sdk.create(server, idempotency_key="my-key")

    template, fork = server.requests
    assert "idempotency-key" not in template.headers
    assert "my-key" == fork.headers["idempotency-key"]


def test_region_goes_on_the_fork_when_set(sdk: Sdk, server: ScriptedServer) -> None:
    sdk.create(server, region="eu")
    sdk.create(server)

    first, second = server.sent("/v1/fork")
    assert "eu" == first.json["region"]
    assert "region" not in second.json


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"network": mitos.Network()}, {"network": {}}),
        ({"network": mitos.Network(block=True)}, {"network": {"block": True}}),
        (
            {"workload": {"command": ["serve"]}, "resources": {"vcpu_count": 2}},
            {"workload": {"command": ["serve"]}, "resources": {"vcpu_count": 2}},
        ),
    ],
)
def test_template_options_are_sent_when_given(
    sdk: Sdk, server: ScriptedServer, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    sdk.create(server, **options)

    assert {"id": "python", "init_wait_seconds": 5, **expected} == server.requests[0].json


def test_create_template_sends_its_idempotency_key_when_given(
    sdk: Sdk, server: ScriptedServer
) -> None:
    at_server = sdk.Server(server.url)

    made = sdk.run(at_server.create_template("web", 9, idempotency_key="once"))

    assert {"id": "web", "init_wait_seconds": 9, "ready": True} == made
    assert "once" == server.requests[0].headers["idempotency-key"]


@pytest.mark.parametrize("bad", ["../up", "", 7, None])
def test_an_id_of_another_form_in_an_answer_is_an_invalid_response(
    sdk: Sdk, server: ScriptedServer, bad: Any
) -> None:
    server.on("POST", "/v1/fork", reply({**descriptor("a"), "id": bad}))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.create(server)


def test_ensuring_a_template_that_exists_says_that_it_is_ready(
    sdk: Sdk, server: ScriptedServer
) -> None:
    server.on("POST", "/v1/templates", envelope(409, "conflict"))

    found = sdk.run(sdk.Server(server.url).ensure_template("web"))

    assert {"id": "web", "ready": True} == found


def test_handles_of_what_runs_are_made_from_the_listing(sdk: Sdk, server: ScriptedServer) -> None:
    server.on("GET", "/v1/sandboxes", reply([descriptor("a"), {"id": "b"}]))
    server.on("POST", "/v1/pause", reply({}))
    at_server = sdk.Server(server.url, KEY)

    first, second = sdk.run(at_server.sandboxes())
    sdk.run(second.pause())
    found = sdk.run(at_server.connect("b"))

    assert ("a", "python", 12.345) == (first.id, first.template, first.fork_time_ms)
    assert ("b", "", "", 0.0) == (found.id, found.template, found.endpoint, found.fork_time_ms)
    assert f"Bearer {KEY}" == server.sent("/v1/pause")[0].headers["authorization"]
    with pytest.raises(mitos.NotFoundError) as caught:
        sdk.run(at_server.connect("nobody"))
    assert ("not_found", 404) == (caught.value.code, caught.value.status)


@pytest.mark.parametrize("row", [{}, {"id": "../up"}, {"id": "a", "endpoint": 7}])
def test_a_row_of_another_form_is_an_invalid_response(
    sdk: Sdk, server: ScriptedServer, row: dict[str, Any]
) -> None:
    server.on("GET", "/v1/sandboxes", reply([row]))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.run(sdk.Server(server.url).sandboxes())


@pytest.mark.parametrize("missing", ["id", "template_id", "endpoint", "fork_time_ms"])
def test_a_fork_s_answer_that_lacks_something_is_an_invalid_response(
    sdk: Sdk, server: ScriptedServer, missing: str
) -> None:
    answer = descriptor("sb-1")
    del answer[missing]
    server.on("POST", "/v1/fork", reply(answer))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.create(server)


@pytest.mark.parametrize(
    "listing",
    [
        [{"id": "a"}, {"id": "b"}],
        {"sandboxes": [{"id": "a"}, {"id": "b"}]},
    ],
)
def test_listings_come_bare_or_wrapped(sdk: Sdk, server: ScriptedServer, listing: Any) -> None:
    server.on("GET", "/v1/sandboxes", reply(listing))
    server.on("GET", "/v1/templates", reply([{"id": "python"}]))
    server.on("GET", "/v1/health", reply({"status": "ok"}))
    at_server = sdk.Server(server.url)

    assert ["a", "b"] == [row["id"] for row in sdk.run(at_server.list_sandboxes())]
    assert [{"id": "python"}] == sdk.run(at_server.list_templates())
    assert {"status": "ok"} == sdk.run(at_server.health())


@pytest.mark.parametrize("odd", ["text", 7, [1], {"a": [], "b": []}])
def test_a_listing_of_another_form_is_an_invalid_response(
    sdk: Sdk, server: ScriptedServer, odd: Any
) -> None:
    server.on("GET", "/v1/sandboxes", reply(odd))

    with pytest.raises(mitos.AgentRunError, match="invalid_response"):
        sdk.run(sdk.Server(server.url).list_sandboxes())


def test_handles_and_servers_never_show_the_key(sdk: Sdk) -> None:
    sandbox = sdk.handle("http://server.test", KEY)

    shown = f"{sandbox!r} {sandbox.pty_url()} {sdk.Server('http://server.test', KEY)!r}"
    assert KEY not in shown
    assert "id='sb-1', fork_time_ms=1.00" in repr(sandbox)
