"""The `/v1` routes: shapes, statuses and codes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from mitos.server.settings import ServerSettings
from tests.server import calling
from tests.server.serving import Server, raw, serving

BAD_IDS = ["", "a/b", "..", "python:3.12", "a" * 65, "-a", "a\n", "ä", "a b", 7, None]


def error_of(answer: httpx.Response) -> dict[str, object]:
    """The envelope, which has no other members."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert set(error) <= {"code", "message", "cause", "remediation", "context"}
    assert error["code"]
    assert error["message"]
    assert error["remediation"]
    return dict(error)


def outcome(answer: httpx.Response) -> tuple[int, object]:
    return answer.status_code, error_of(answer)["code"]


# Health


def test_health_counts_templates_and_sandboxes(server: Server, sandbox: str) -> None:
    answer = server.get("/v1/health")

    body = answer.json()
    assert (200, "ok", False) == (answer.status_code, body["status"], body["mock"])
    assert isinstance(body["templates"], int)
    assert body["sandboxes"] >= 1


def test_healthz_says_that_nothing_is_isolated(server: Server) -> None:
    answer = server.get("/healthz")

    assert (200, "ok (gvisor)") == (answer.status_code, answer.text.strip())


def test_readyz_is_open(server: Server) -> None:
    assert server.get("/readyz").status_code == 200


# Templates


def test_creating_a_template_twice_is_the_same_answer(server: Server) -> None:
    first = server.post("/v1/templates", json={"id": "base", "init_wait_seconds": 5})
    second = server.post("/v1/templates", json={"id": "base", "init_wait_seconds": 5})

    for answer in (first, second):
        body = answer.json()
        assert (200, "base", True) == (answer.status_code, body["id"], body["ready"])
        assert {"egress": "deny", "inbound": "deny"} == body["network"]
        assert body["creation_time_ms"] >= 0
        assert datetime.fromisoformat(body["created_at"]).utcoffset() is not None


@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_template_id_must_match(server: Server, bad: object) -> None:
    assert outcome(server.post("/v1/templates", json={"id": bad})) == (400, "invalid_input")


@pytest.mark.parametrize(
    "network",
    [
        {"egress": "maybe"},
        {"inbound": "yes"},
        {"allow_cidrs": ["10.0.0.0/33"]},
        {"inbound_cidrs": ["here"]},
        {"allow_domains": ["example.org"]},
        {"block": "no"},
        [],
    ],
)
def test_a_malformed_posture_makes_no_template(
    server: Server, tmp_path: Path, network: object
) -> None:
    with serving(tmp_path / "own") as own:
        body = {"id": "base", "network": network}
        assert outcome(own.post("/v1/templates", json=body)) == (400, "invalid_input")
        assert ["python"] == [row["id"] for row in own.get("/v1/templates").json()]


def test_the_posture_is_echoed_and_inherited_in_the_other_spelling(tmp_path: Path) -> None:
    network = {"egress": "allow", "allow_cidrs": ["10.0.0.0/8"], "block": True}
    with serving(tmp_path / "own") as own:
        before = own.create()
        answer = own.post("/v1/templates", json={"id": "python", "network": network}).json()
        after = own.create()
        rows = {row["id"]: row["network"] for row in own.get("/v1/sandboxes").json()}

    assert {"inbound": "deny", **network} == answer["network"]
    assert {"egress": "deny", "inbound": "deny"} == rows[before]
    assert {
        "egress": "allow",
        "inbound": "deny",
        "blockNetwork": True,
        "allowCidrs": ["10.0.0.0/8"],
    } == rows[after]


def test_an_unknown_image_is_not_found_and_names_what_there_is(server: Server) -> None:
    error = error_of(server.post("/v1/templates", json={"id": "nothing"}))

    assert error["code"] == "not_found"
    assert "python" in json.dumps(error)


def test_templates_can_be_listed_read_and_deleted(tmp_path: Path) -> None:
    with serving(tmp_path / "own") as own:
        sandbox = own.create()
        listed = own.get("/v1/templates").json()
        read = own.get("/v1/templates/python").json()
        deleted = own.delete("/v1/templates/python")
        again = own.delete("/v1/templates/python")
        fork = own.post("/v1/fork", json={"template": "python", "id": "x"})
        still = calling.run(own, sandbox, "echo on")

    assert listed == [read]
    assert (200, {"status": "deleted", "id": "python"}) == (deleted.status_code, deleted.json())
    assert (404, "not_found") == outcome(again) == outcome(fork)
    assert ("on\n", "", 0) == still


def test_resources_out_of_range_are_refused(server: Server) -> None:
    for resources in ({"vcpu_count": -1}, {"mem_size_mib": 1}, {"vcpu_count": "2"}, 5):
        body = {"id": "base", "resources": resources}
        assert outcome(server.post("/v1/templates", json=body)) == (400, "invalid_input")


# Sandboxes


def test_a_new_sandbox_is_described_and_answers(server: Server) -> None:
    wanted = server.new_id()

    answer = server.post("/v1/fork", json={"template": "python", "id": wanted, "region": "eu"})

    body = answer.json()
    assert (200, wanted, "python") == (answer.status_code, body["id"], body["template_id"])
    assert server.url == body["endpoint"]
    assert body["fork_time_ms"] > 0
    assert datetime.fromisoformat(body["created_at"]).utcoffset() is not None
    assert ("hi\n", "", 0) == calling.run(server, wanted, "echo hi")


def test_an_unknown_template_is_not_found(server: Server) -> None:
    answer = server.post("/v1/fork", json={"template": "nothing", "id": server.new_id()})

    assert (404, "not_found") == outcome(answer)


@pytest.mark.parametrize("bad", BAD_IDS)
def test_both_ids_of_a_new_sandbox_must_match(server: Server, bad: object) -> None:
    for body in ({"template": "python", "id": bad}, {"template": bad, "id": server.new_id()}):
        assert (400, "invalid_input") == outcome(server.post("/v1/fork", json=body))


def test_an_id_in_use_is_a_conflict(server: Server, sandbox: str) -> None:
    answer = server.post("/v1/fork", json={"template": "python", "id": sandbox})

    assert (409, "invalid_input") == outcome(answer)
    assert ("on\n", "", 0) == calling.run(server, sandbox, "echo on")


def test_the_list_is_a_bare_array(server: Server, sandbox: str) -> None:
    rows = server.get("/v1/sandboxes").json()

    assert isinstance(rows, list)
    assert all(row["id"] and row["template_id"] for row in rows)
    assert sandbox in [row["id"] for row in rows]


def test_one_sandbox_is_read_with_phase_and_deadline(server: Server, sandbox: str) -> None:
    before = server.get(f"/v1/sandboxes/{sandbox}").json()
    deadline = server.post("/v1/set_timeout", json={"sandbox": sandbox, "timeout_seconds": 600})
    after = server.get(f"/v1/sandboxes/{sandbox}").json()

    assert ("Ready", False) == (before["phase"], "deadline_unix" in before)
    assert deadline.json()["deadline_unix"] == after["deadline_unix"]


def test_a_terminated_sandbox_is_gone_and_its_id_free(server: Server, sandbox: str) -> None:
    first = server.delete(f"/v1/sandboxes/{sandbox}")
    second = server.delete(f"/v1/sandboxes/{sandbox}")
    listed = [row["id"] for row in server.get("/v1/sandboxes").json()]
    again = server.post("/v1/fork", json={"template": "python", "id": sandbox})

    assert (200, {"status": "terminated", "id": sandbox}) == (first.status_code, first.json())
    assert (404, "not_found") == outcome(second)
    assert sandbox not in listed
    assert again.status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_id_in_a_path_must_match(server: Server, method: str) -> None:
    for bad in ("a" * 65, "-a", "a%0A", "python:3.12", "%2E%2E"):
        answer = server.request(method, f"/v1/sandboxes/{bad}")
        assert (400, "invalid_input") == outcome(answer)


# Live fork


def test_a_fork_has_the_files_of_its_source_and_its_own_afterwards(
    server: Server, sandbox: str
) -> None:
    calling.run(server, sandbox, "echo plan > /workspace/plan")
    child = server.new_id()
    body = {"id": child, "template": "ignored", "pause_source": True}

    answer = server.post(f"/v1/sandboxes/{sandbox}/fork", json=body)

    described = answer.json()
    assert (200, child, "python") == (answer.status_code, described["id"], described["template_id"])
    assert "children" not in described
    calling.run(server, child, "echo mine > /workspace/own")
    assert ("plan\n", "", 0) == calling.run(server, child, "cat /workspace/plan")
    assert calling.run(server, sandbox, "cat /workspace/own")[2] != 0


def test_fork_with_a_source_is_a_live_fork(server: Server, sandbox: str) -> None:
    calling.run(server, sandbox, "echo plan > /workspace/plan")
    child = server.new_id()

    answer = server.post("/v1/fork", json={"template": "python", "id": child, "source": sandbox})

    assert answer.status_code == 200
    assert ("plan\n", "", 0) == calling.run(server, child, "cat /workspace/plan")


def test_fork_without_a_source_is_a_clean_start(server: Server, sandbox: str) -> None:
    calling.run(server, sandbox, "echo plan > /workspace/plan")
    other = server.create()

    assert calling.run(server, other, "cat /workspace/plan")[2] != 0


def test_ids_makes_all_children_from_one_instant(server: Server, sandbox: str) -> None:
    wanted = [server.new_id() for _ in range(3)]

    answer = server.post(
        f"/v1/sandboxes/{sandbox}/fork", json={"id": wanted[0], "ids": wanted}
    ).json()

    assert wanted[0] == answer["id"]
    assert wanted == [child["id"] for child in answer["children"]]
    assert all(child["endpoint"] and child["fork_time_ms"] > 0 for child in answer["children"])
    for child in wanted:
        assert ("on\n", "", 0) == calling.run(server, child, "echo on")


@pytest.mark.parametrize(
    "body",
    [
        {"ids": []},
        {"ids": ["a", "a"]},
        {"ids": ["a", "b/c"]},
        {"ids": "a"},
        {"ids": [f"many-{n}" for n in range(65)]},
        {"id": "b", "ids": ["a", "b"]},
        {"id": None},
        {},
    ],
)
def test_children_need_ids_that_match_and_differ(
    server: Server, sandbox: str, body: dict[str, object]
) -> None:
    answer = server.post(f"/v1/sandboxes/{sandbox}/fork", json=body)

    assert (400, "invalid_input") == outcome(answer)


def test_an_unknown_source_is_not_found(server: Server) -> None:
    by_path = server.post("/v1/sandboxes/nobody/fork", json={"id": "x"})
    by_body = server.post("/v1/fork", json={"template": "python", "id": "x", "source": "nobody"})

    assert (404, "not_found") == outcome(by_path) == outcome(by_body)


def test_a_source_that_is_no_id_is_refused(server: Server) -> None:
    for bad in ("a/b", 7, "a\n"):
        answer = server.post("/v1/fork", json={"template": "python", "id": "x", "source": bad})
        assert (400, "invalid_input") == outcome(answer)


# Lifecycle


def test_a_deadline_is_told_and_kept(server: Server, sandbox: str) -> None:
    body = {"sandbox": sandbox, "timeout_seconds": 1}
    set_to = server.post("/v1/set_timeout", json=body).json()
    assert ("ok", 1) == (set_to["status"], set_to["timeout_seconds"])
    assert isinstance(set_to["deadline_unix"], int)

    async def reaped() -> None:
        while any(record.id == sandbox for record in server.node.list_sandboxes()):
            await asyncio.sleep(0.02)

    server.run(reaped())
    answer = calling.stream(server, "ExecStream", sandbox, {"command": "true"})
    error = calling.messages(answer.content)[1]["error"]

    assert ("failed_precondition", "idle_timeout") == (
        error["code"],
        calling.detail(error)["reason"],
    )
    assert (410, "idle_timeout") == outcome(server.get(f"/v1/sandboxes/{sandbox}"))


@pytest.mark.parametrize("bad", [0, -1, None, "5", 1.5, True])
def test_a_deadline_needs_a_positive_whole_number(
    server: Server, sandbox: str, bad: object
) -> None:
    body = {"sandbox": sandbox, "timeout_seconds": bad}

    assert (400, "invalid_input") == outcome(server.post("/v1/set_timeout", json=body))


def test_a_deadline_over_the_ceiling_is_refused_with_both_numbers(
    server: Server, sandbox: str
) -> None:
    answer = server.post("/v1/set_timeout", json={"sandbox": sandbox, "timeout_seconds": 86_401})

    error = error_of(answer)
    assert (400, "timeout_too_large") == (answer.status_code, error["code"])
    expected = {"sandbox": sandbox, "requested_s": 86_401, "max_timeout_s": 86_400}
    assert expected == error["context"]


def test_pause_and_resume_can_be_repeated(server: Server, sandbox: str) -> None:
    for _ in range(3):
        for _ in range(2):
            paused = server.post("/v1/pause", json={"sandbox": sandbox})
            assert (200, {"status": "paused"}) == (paused.status_code, paused.json())
        assert "Paused" == server.get(f"/v1/sandboxes/{sandbox}").json()["phase"]
        for _ in range(2):
            resumed = server.post("/v1/resume", json={"sandbox": sandbox})
            assert (200, {"status": "running"}) == (resumed.status_code, resumed.json())
        assert ("on\n", "", 0) == calling.run(server, sandbox, "echo on")


def test_a_paused_sandbox_refuses_calls(server: Server, sandbox: str) -> None:
    server.post("/v1/pause", json={"sandbox": sandbox})

    answer = calling.unary(server, "List", sandbox, {"parent": "/"})

    assert (400, "failed_precondition") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("route", ["/v1/set_timeout", "/v1/pause", "/v1/resume"])
def test_the_lifecycle_of_an_unknown_sandbox_is_not_found(server: Server, route: str) -> None:
    body = {"sandbox": "nobody", "timeout_seconds": 5}

    assert (404, "not_found") == outcome(server.post(route, json=body))


# Idempotency


def test_a_key_replays_the_first_answer(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_id()}
    first, second = (
        server.post("/v1/fork", json={"template": "python", "id": server.new_id()}, headers=headers)
        for _ in range(2)
    )

    assert 200 == first.status_code == second.status_code
    assert first.json() == second.json()


def test_ten_requests_with_one_key_make_one_sandbox(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_id()}
    wanted = [server.new_id() for _ in range(10)]

    def create(sandbox: str) -> httpx.Response:
        return server.post("/v1/fork", json={"template": "python", "id": sandbox}, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(create, wanted))

    assert {200} == {answer.status_code for answer in answers}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([row for row in server.node.list_sandboxes() if row.id in wanted]) == 1


def test_a_key_of_another_kind_does_not_replay(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_id()}
    wanted = server.new_id()

    server.post("/v1/templates", json={"id": "python"}, headers=headers)
    answer = server.post("/v1/fork", json={"template": "python", "id": wanted}, headers=headers)

    assert wanted == answer.json()["id"]


def test_a_failed_create_releases_its_key(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_id()}
    wanted = server.new_id()

    failed = server.post("/v1/fork", json={"template": "none", "id": wanted}, headers=headers)
    retried = server.post("/v1/fork", json={"template": "python", "id": wanted}, headers=headers)

    assert (404, 200) == (failed.status_code, retried.status_code)


def test_a_replay_of_what_was_deleted_creates_anew(server: Server) -> None:
    headers = {"Idempotency-Key": server.new_id()}
    body = {"template": "python", "id": server.new_id()}
    server.post("/v1/fork", json=body, headers=headers)
    server.delete(f"/v1/sandboxes/{body['id']}")

    answer = server.post("/v1/fork", json={**body, "id": server.new_id()}, headers=headers)

    assert answer.status_code == 200
    assert body["id"] != answer.json()["id"]


# Bodies and routes


POST_ROUTES = [
    "/v1/templates",
    "/v1/fork",
    "/v1/sandboxes/x/fork",
    "/v1/set_timeout",
    "/v1/pause",
    "/v1/resume",
]


@pytest.mark.parametrize("route", POST_ROUTES)
@pytest.mark.parametrize(
    "body", [b"", b'{"id": ', b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"NaN"]
)
def test_a_body_that_is_no_json_object_is_refused(server: Server, route: str, body: bytes) -> None:
    assert (400, "invalid_json") == outcome(server.post(route, content=body))


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    answer = server.post("/v1/fork", content=b" " * (33 << 20))

    assert (413, "body_too_large") == outcome(answer)


def test_a_body_over_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    """The server does not wait for the end of a body it will not take."""
    settings = ServerSettings(max_body_bytes=1000)
    with serving(tmp_path / "own", settings=settings) as own:
        head = b"POST /v1/fork HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        with raw(own, head + b" " * 2000) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/exec", 404),
        ("GET", "/v1/fork", 405),
        ("PUT", "/v1/sandboxes", 405),
        ("PATCH", "/v1/sandboxes/x", 405),
        ("POST", "/v1/health", 405),
        ("GET", "/v1/sandboxes/", 404),
        ("GET", "/v1/../etc/passwd", 404),
    ],
)
def test_an_unknown_route_or_method_is_an_envelope(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = server.request(method, path)

    assert status == answer.status_code
    error_of(answer)
    assert (status == 405) == ("allow" in answer.headers)


def test_members_nobody_knows_are_ignored(server: Server) -> None:
    body = {"template": "python", "id": server.new_id(), "unknown": {"deep": [1]}}

    assert 200 == server.post("/v1/fork", json=body).status_code


def test_a_bug_is_internal_and_tells_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr(server.node, "list_sandboxes", fail)
    answer = server.get("/v1/sandboxes")

    assert (500, "internal") == outcome(answer)
    assert "secret of ours" not in answer.text
