"""Health and what operators read, as far as it needs no real numbers."""

from __future__ import annotations

import pytest

from mitos.engine.base import Probe, ProbeCheck
from tests.server.serving import Server


def test_health_counts_templates_and_sandboxes(server: Server, sandbox: str) -> None:
    answer = server.get("/v1/health")

    body = answer.json()
    assert (200, "ok", False) == (answer.status_code, body["status"], body["mock"])
    assert isinstance(body["templates"], int)
    assert body["sandboxes"] >= 1


def test_readyz_is_open(server: Server) -> None:
    assert server.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/health", "/healthz", "/readyz"])
def test_health_needs_no_key_and_names_no_sandbox(keyed: Server, path: str) -> None:
    sandbox = keyed.create()
    with keyed.client() as client:
        client.headers.pop("authorization")
        answer = client.get(path)

    assert 200 == answer.status_code
    assert sandbox not in answer.text


@pytest.mark.parametrize("path", ["/metrics", "/v1/metering", "/v1/vitals/node"])
def test_what_names_sandboxes_needs_the_key(keyed: Server, path: str) -> None:
    keyed.create()
    with keyed.client() as client:
        assert 200 == client.get(path).status_code
        client.headers.pop("authorization")
        assert 401 == client.get(path).status_code


def test_a_machine_that_cannot_run_sandboxes_is_not_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ProbeCheck("runsc", passed=False, detail="it is gone", remediation="Install it.")

    async def probe() -> Probe:
        return Probe("gvisor", (check,))

    monkeypatch.setattr(server.node.engine, "probe", probe)
    answer = server.get("/readyz")

    assert 503 == answer.status_code
    assert "Install it." == answer.json()["error"]["remediation"]
