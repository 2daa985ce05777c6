"""Draining over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mitos
from tests.server.serving import Server


@pytest.fixture
def drained(server: Server) -> Iterator[Server]:
    """A server that is drained until the test is over."""
    sandbox_server = mitos.SandboxServer(server.url)
    assert sandbox_server.drain()["draining"]
    yield server
    assert not sandbox_server.end_drain()["draining"]


def test_a_drained_server_says_so_and_is_not_ready(drained: Server) -> None:
    answer = drained.get("/v1/drain")

    assert {"draining": True, "hibernates": False, "left": []} == answer.json()
    assert 503 == drained.get("/readyz").status_code
    assert 200 == drained.get("/healthz").status_code
    assert 200 == drained.get("/v1/health").status_code


def test_a_refused_create_says_what_to_do(drained: Server) -> None:
    answer = drained.post("/v1/fork", json={"template": "python", "id": drained.new_id()})

    assert 503 == answer.status_code
    assert "Retry-After" in answer.headers
    error = answer.json()["error"]
    assert "internal" == error["code"]
    assert "mitos drain --undo" in error["remediation"]


def test_a_refusal_is_an_error_that_may_help_to_retry(drained: Server) -> None:
    with pytest.raises(mitos.AgentRunError) as caught:
        mitos.SandboxServer(drained.url).fork("python")

    assert caught.value.retryable
    assert 503 == caught.value.status


def test_sandboxes_are_hibernated_when_asked(server: Server, sandbox: str) -> None:
    sandbox_server = mitos.SandboxServer(server.url)
    try:
        assert sandbox_server.drain(hibernate=True)["hibernates"]
        while sandbox_server.drain_status()["left"]:
            pass
        rows = {row["id"]: row["phase"] for row in sandbox_server.list_sandboxes()}
    finally:
        sandbox_server.end_drain()

    assert "Hibernated" == rows[sandbox]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_it_needs_the_key(keyed: Server, method: str) -> None:
    with keyed.client() as client:
        client.headers.pop("authorization")
        assert 401 == client.request(method, "/v1/drain").status_code
