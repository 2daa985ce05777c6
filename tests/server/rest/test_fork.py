"""New sandboxes, from templates and from sandboxes; idempotency keys."""

from __future__ import annotations

import concurrent.futures

import httpx
import pytest

from tests.server import calling
from tests.server.answer import BAD_IDS, outcome
from tests.server.serving import Server


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


def test_fork_with_a_source_is_a_live_fork(server: Server, sandbox: str) -> None:
    calling.run(server, sandbox, "echo plan > /workspace/plan")
    child = server.new_id()

    answer = server.post("/v1/fork", json={"template": "python", "id": child, "source": sandbox})

    assert answer.status_code == 200
    assert ("plan\n", "", 0) == calling.run(server, child, "cat /workspace/plan")


@pytest.mark.parametrize("member", ["partial", "pause_source"])
@pytest.mark.parametrize("value", ["true", 1, [], {}])
def test_a_flag_of_a_fork_is_true_or_false(
    server: Server, sandbox: str, member: str, value: object
) -> None:
    body = {"id": server.new_id(), member: value}

    for route in (f"/v1/sandboxes/{sandbox}/fork", "/v1/fork"):
        answer = server.post(route, json={**body, "source": sandbox})
        assert (400, "invalid_input") == outcome(answer)
        assert member in answer.text


def test_fork_without_a_source_is_a_clean_start(server: Server, sandbox: str) -> None:
    calling.run(server, sandbox, "echo plan > /workspace/plan")
    other = server.create()

    assert calling.run(server, other, "cat /workspace/plan")[2] != 0


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
    assert len([row for row in server.tenant.list_sandboxes() if row.id in wanted]) == 1


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
