"""Sandboxes that exist: shapes, statuses and codes."""

from __future__ import annotations

import asyncio

import pytest

from tests.server import calling
from tests.server.answer import error_of, outcome
from tests.server.serving import Server


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


def test_a_deadline_is_told_and_kept(server: Server, sandbox: str) -> None:
    body = {"sandbox": sandbox, "timeout_seconds": 1}
    set_to = server.post("/v1/set_timeout", json=body).json()
    assert ("ok", 1) == (set_to["status"], set_to["timeout_seconds"])
    assert isinstance(set_to["deadline_unix"], int)

    async def reaped() -> None:
        while any(record.id == sandbox for record in server.tenant.list_sandboxes()):
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


def test_a_paused_sandbox_refuses_calls(server: Server, sandbox: str) -> None:
    server.post("/v1/pause", json={"sandbox": sandbox})

    answer = calling.unary(server, "List", sandbox, {"parent": "/"})

    assert (400, "failed_precondition") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("route", ["/v1/set_timeout", "/v1/pause", "/v1/resume"])
def test_the_lifecycle_of_an_unknown_sandbox_is_not_found(server: Server, route: str) -> None:
    body = {"sandbox": "nobody", "timeout_seconds": 5}

    assert (404, "not_found") == outcome(server.post(route, json=body))


def test_a_checkpoint_to_go_back_to_must_be_an_id(server: Server, sandbox: str) -> None:
    answer = server.post(f"/v1/sandboxes/{sandbox}/restore", json={"checkpoint": "a/b"})

    assert (400, "invalid_input") == outcome(answer)
    assert "checkpoint" in str(error_of(answer)["message"])
