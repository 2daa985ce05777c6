"""Templates: shapes, refusals."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.server import calling
from tests.server.answer import BAD_IDS, error_of, outcome
from tests.server.serving import Server, serving_fake


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
    with serving_fake(tmp_path / "own") as own:
        body = {"id": "base", "network": network}
        assert outcome(own.post("/v1/templates", json=body)) == (400, "invalid_input")
        assert ["python"] == [row["id"] for row in own.get("/v1/templates").json()]


def test_the_posture_is_echoed_and_inherited_in_the_other_spelling(tmp_path: Path) -> None:
    network = {"egress": "allow", "allow_cidrs": ["10.0.0.0/8"], "block": True}
    with serving_fake(tmp_path / "own") as own:
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
    with serving_fake(tmp_path / "own") as own:
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
