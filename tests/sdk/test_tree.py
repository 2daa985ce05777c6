"""The fork tree: requests as the wire says, and what becomes of odd and hostile answers."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

import mitos
from mitos.types import Checkpoint, FileDiff, Relative
from tests.sdk.conftest import KEY, Sdk
from tests.sdk.scripted import Answer, ScriptedServer, descriptor, envelope, page, reply

HERE = "/v1/sandboxes/sb-1"
FORK = f"{HERE}/fork"
KEPT = {
    "id": "cp-1",
    "name": "before",
    "created_at": "2026-01-02T03:04:05Z",
    "size_bytes": 4096,
}
ROOT = {
    "uid": "u1",
    "id": "sb-1",
    "parent_uid": None,
    "template_id": "python",
    "created_at_unix": 5.5,
    "phase": "Ready",
}
LEAF = {
    **ROOT,
    "uid": "u2",
    "id": "kid",
    "parent_uid": "u1",
    "phase": "Ended",
    "ended_at_unix": 9,
    "reason": "terminated",
}
NO_DIFF: dict[str, list[str]] = {"added": [], "removed": [], "modified": []}


def call(sdk: Sdk, sandbox: Any, name: str) -> Any:
    """A call of the fork tree, by its name."""
    arguments = {"restore": ["cp-1"], "delete_checkpoint": ["cp-1"], "diff": ["kid"]}
    return sdk.run(getattr(sandbox, name)(*arguments.get(name, [])))


ROUTES = {
    "tree": ("GET", f"{HERE}/tree"),
    "diff": ("GET", f"{HERE}/diff?with=kid"),
    "checkpoint": ("POST", f"{HERE}/checkpoints"),
    "checkpoints": ("GET", f"{HERE}/checkpoints"),
    "restore": ("POST", f"{HERE}/restore"),
    "delete_checkpoint": ("DELETE", f"{HERE}/checkpoints/cp-1"),
    "promote": ("POST", f"{HERE}/promote"),
    "hibernate": ("POST", f"{HERE}/hibernate"),
}


def test_a_tree_has_every_member_of_the_family(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on(*ROUTES["tree"], reply({"nodes": [ROOT, LEAF]}))

    root, leaf = sdk.run(sandbox.tree())

    assert Relative("u1", "sb-1", None, "python", 5.5, "Ready") == root
    assert Relative("u2", "kid", "u1", "python", 5.5, "Ended", 9, "terminated") == leaf


def test_a_checkpoint_is_made_with_its_name(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on(*ROUTES["checkpoint"], reply(KEPT))

    made = sdk.run(sandbox.checkpoint("before"))

    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert Checkpoint("cp-1", "before", at, 4096) == made
    (request,) = server.requests
    assert {"name": "before"} == request.json
    assert request.headers["idempotency-key"]


def test_a_name_that_is_no_unicode_is_left_to_the_server_to_refuse(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    refusal = {"code": "invalid_input", "message": "name must be Unicode text"}
    server.on(*ROUTES["checkpoint"], reply({"error": refusal}, status=400))

    with pytest.raises(mitos.AgentRunError, match="Unicode"):
        sdk.run(sandbox.checkpoint("a\ud800"))


def test_checkpoints_are_listed(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on(*ROUTES["checkpoints"], reply([KEPT, {**KEPT, "id": "cp-2", "name": ""}]))

    found = sdk.run(sandbox.checkpoints())

    assert [("cp-1", "before"), ("cp-2", "")] == [(each.id, each.name) for each in found]


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_checkpoint_is_named_whole_or_by_its_id(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, is_whole: bool
) -> None:
    server.on(*ROUTES["restore"], reply(descriptor("sb-1")))
    server.on(*ROUTES["delete_checkpoint"], reply({"status": "deleted", "id": "cp-1"}))
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    kept = Checkpoint("cp-1", "", at, 1) if is_whole else "cp-1"

    assert sdk.run(sandbox.restore(kept)) is None
    assert sdk.run(sandbox.delete_checkpoint(kept)) is None

    restored, deleted = server.requests
    assert {"checkpoint": "cp-1"} == restored.json
    assert ("DELETE", b"") == (deleted.method, deleted.body)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_diff_names_the_other(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, by_id: bool
) -> None:
    answer = {"added": ["/a"], "removed": ["/b"], "modified": ["/c", "/d"]}
    server.on(*ROUTES["diff"], reply(answer))
    other = "kid" if by_id else sdk.handle(server.url, sandbox_id="kid")

    assert FileDiff(["/a"], ["/b"], ["/c", "/d"]) == sdk.run(sandbox.diff(other))


def test_a_promoted_handle_has_its_parent_s_id(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on(*ROUTES["promote"], reply(descriptor("parent")))
    server.on_call("Mkdir", reply({}))

    sdk.run(sandbox.promote())
    sdk.run(sandbox.files.mkdir("/a"))

    assert "parent" == sandbox.id
    assert "parent" == server.calls("Mkdir")[0].headers["x-sandbox-id"]


def test_hibernate_returns_nothing(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on(*ROUTES["hibernate"], reply({"status": "hibernated"}))

    assert sdk.run(sandbox.hibernate()) is None


def test_the_end_of_a_subtree_is_asked_for_in_the_query(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("DELETE", f"{HERE}?subtree=true", reply({"status": "terminated", "ids": ["sb-1"]}))

    assert sdk.run(sandbox.terminate(subtree=True)) is None

    assert [("DELETE", f"{HERE}?subtree=true")] == [(r.method, r.path) for r in server.requests]


# Partial forks


def test_a_partial_fork_has_children_and_errors(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    full = {"code": "quota_exceeded", "message": "full", "remediation": "Wait."}
    answer = {"children": [descriptor("kid-0")], "errors": [{"id": "kid-1", "error": full}]}
    server.on("POST", FORK, reply(answer))

    forked = sdk.run(sandbox.fork(2, id="kid", partial=True))

    (request,) = server.requests
    assert {
        "id": "kid-0",
        "ids": ["kid-0", "kid-1"],
        "template": "python",
        "pause_source": True,
        "partial": True,
    } == request.json
    assert ["kid-0"] == [child.id for child in forked]
    assert ["kid-1"] == [*forked.errors]
    error = forked.errors["kid-1"]
    assert ("quota_exceeded", "Wait.") == (error.code, error.remediation)


def test_a_partial_fork_of_one_is_partial_too(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", FORK, reply({"children": [descriptor("kid")], "errors": []}))

    forked = sdk.run(sandbox.fork(id="kid", partial=True))

    assert ["kid"] == server.requests[0].json["ids"]
    assert (["kid"], {}) == ([child.id for child in forked], forked.errors)


def test_a_server_without_partial_forks_makes_one_at_a_time(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    one = reply(descriptor("kid-0"))
    server.on("POST", FORK, one, envelope(429, "quota_exceeded"), reply(descriptor("kid-2")))

    forked = sdk.run(sandbox.fork(3, id="kid", partial=True))

    assert ["kid-0", "kid-2"] == [child.id for child in forked]
    assert {"kid-1": "quota_exceeded"} == {each: e.code for each, e in forked.errors.items()}
    assert ["kid-0", "kid-1", "kid-2"] == [request.json["id"] for request in server.requests]


def test_a_server_without_live_forks_is_asked_on_the_older_route(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    forked = sdk.run(sandbox.fork(2, id="kid", partial=True))

    assert (["kid-0", "kid-1"], {}) == ([child.id for child in forked], forked.errors)
    older = [request.json for request in server.sent("/v1/fork")]
    assert ["sb-1", "sb-1"] == [body["source"] for body in older]


def test_a_partial_fork_without_a_snapshot_is_an_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on("POST", FORK, envelope(404, "not_found", message="no sandbox sb-1"))

    with pytest.raises(mitos.NotFoundError):
        sdk.run(sandbox.fork(2, partial=True))

    assert 1 == len(server.requests)


# Answers that are none

ODD: dict[str, list[Any]] = {
    "tree": [
        {},
        [7],
        {"nodes": {}},
        {"nodes": [{}]},
        {"nodes": [{**ROOT, "uid": 7}]},
        {"nodes": [{**ROOT, "parent_uid": []}]},
        {"nodes": [{**ROOT, "created_at_unix": "now"}]},
        {"nodes": [{**LEAF, "ended_at_unix": True}]},
        {"nodes": [{**LEAF, "reason": {}}]},
    ],
    "diff": [
        {},
        [],
        7,
        {**NO_DIFF, "added": "/a"},
        {**NO_DIFF, "removed": [7]},
        {**NO_DIFF, "modified": None},
    ],
    "checkpoint": [
        {},
        [],
        {**KEPT, "id": "../up"},
        {**KEPT, "id": 7},
        {**KEPT, "name": None},
        {**KEPT, "created_at": "yesterday"},
        {**KEPT, "created_at": 7},
        {**KEPT, "size_bytes": "much"},
        {**KEPT, "size_bytes": float("inf")},
        {**KEPT, "size_bytes": float("nan")},
    ],
    "checkpoints": [{}, 7, [7], [{}], [KEPT, {**KEPT, "id": ""}]],
    "promote": [{}, [], {**descriptor("a"), "id": "../up"}, {**descriptor("a"), "id": 7}],
}
CASES = [(name, answer) for name, answers in ODD.items() for answer in answers]


@pytest.mark.parametrize(("name", "odd"), CASES)
def test_an_answer_of_another_form_is_an_invalid_response(
    sdk: Sdk, server: ScriptedServer, name: str, odd: Any
) -> None:
    sandbox = sdk.handle(server.url)
    server.on(*ROUTES[name], reply(odd))

    with pytest.raises(mitos.AgentRunError) as caught:
        call(sdk, sandbox, name)

    assert "invalid_response" == caught.value.code
    assert "sb-1" == sandbox.id


@pytest.mark.parametrize(
    "odd",
    [
        [],
        7,
        {"children": 7},
        {"children": [], "errors": 7},
        {"children": [{}], "errors": []},
        {"children": [descriptor("a")], "errors": []},
        {"children": [descriptor("kid-0"), descriptor("kid-0")], "errors": []},
        {"children": [descriptor("kid-0")], "errors": [{"id": "kid-0", "error": {}}]},
        {"children": [], "errors": [{"id": ["kid-0"], "error": {}}]},
        {"children": [], "errors": [{}]},
    ],
)
def test_a_partial_answer_of_another_form_is_an_invalid_response(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, odd: Any
) -> None:
    server.on("POST", FORK, reply(odd))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.fork(2, id="kid", partial=True))

    assert "invalid_response" == caught.value.code


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize(
    "answer", [page(f"<html>{KEY}"), reply({"error": {"code": KEY, "message": KEY}}, 500)]
)
def test_a_key_in_an_answer_is_redacted(
    sdk: Sdk, server: ScriptedServer, name: str, answer: Answer
) -> None:
    server.on(*ROUTES[name], answer)

    with pytest.raises(mitos.AgentRunError) as caught:
        call(sdk, sdk.handle(server.url, KEY), name)

    assert KEY not in str(caught.value) + repr(vars(caught.value))
    assert "[REDACTED]" in str(caught.value)


def test_a_key_in_a_partial_answer_is_redacted(sdk: Sdk, server: ScriptedServer) -> None:
    told = {"code": "internal", "message": KEY, "cause": KEY, "context": {"a": [KEY]}}
    server.on("POST", FORK, reply({"children": [], "errors": [{"id": "kid", "error": told}]}))

    forked = sdk.run(sdk.handle(server.url, KEY).fork(id="kid", partial=True))

    error = forked.errors["kid"]
    assert KEY not in str(error) + json.dumps(error.context)


@pytest.mark.parametrize("bad", ["../up", "", "a/b", "a?b=1", "a\n"])
def test_an_id_that_is_none_is_refused_before_any_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, bad: str
) -> None:
    for make in (sandbox.diff, sandbox.restore, sandbox.delete_checkpoint):
        with pytest.raises(mitos.AgentRunError, match="invalid_sandbox_id"):
            sdk.run(make(bad))

    assert [] == server.requests
