"""The `/v1` routes where a real sandbox shows what they did."""

from __future__ import annotations

from datetime import datetime

from tests.server import calling
from tests.server.serving import Server


def test_healthz_says_that_nothing_is_isolated(server: Server) -> None:
    answer = server.get("/healthz")

    assert (200, "ok (gvisor)") == (answer.status_code, answer.text.strip())


def test_a_new_sandbox_is_described_and_answers(server: Server) -> None:
    wanted = server.new_id()

    answer = server.post("/v1/fork", json={"template": "python", "id": wanted, "region": "eu"})

    body = answer.json()
    assert (200, wanted, "python") == (answer.status_code, body["id"], body["template_id"])
    assert server.url == body["endpoint"]
    assert body["fork_time_ms"] > 0
    assert datetime.fromisoformat(body["created_at"]).utcoffset() is not None
    assert ("hi\n", "", 0) == calling.run(server, wanted, "echo hi")


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
