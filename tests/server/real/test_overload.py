"""Overload drills with real sandboxes: crowds of creates, a large fork, terminals that flood."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import websocket

from tests.server.at_rest import settled, wait_for_rest
from tests.server.dialing import LEGACY, dial, typed
from tests.server.health import asking
from tests.server.serving import Server, serving

pytestmark = pytest.mark.timeout(180)


HEALTH_S = 5.0
"""The clients are threads of the server's own process, and take its time."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("own")
    with serving(folder, warm_per_template=0, max_blanks_per_spec=0, max_streams=0) as running:
        yield running


@pytest.mark.parametrize(
    "count", [pytest.param(40, id="40"), pytest.param(200, id="200", marks=pytest.mark.soak)]
)
def test_a_crowd_of_creates(own: Server, count: int) -> None:
    before = settled(own)

    def create(number: int) -> httpx.Response:
        body = {"template": "python", "id": f"crowd-{number}"}
        with own.client() as client:
            return client.post("/v1/fork", json=body, timeout=120)

    with asking(own) as health, ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(create, range(count)))

    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) <= {200, 429}, counted
    assert counted[200] >= count // 2
    assert all(
        answer.json()["error"]["code"] in ("rate_limited", "quota_exceeded")
        for answer in answers
        if answer.status_code == 429
    )
    assert health.failures == []
    assert health.quantile(0.99) < HEALTH_S
    own.end_sandboxes()
    wait_for_rest(own, before)


@pytest.mark.parametrize("count", [16, pytest.param(64, marks=pytest.mark.matrix)])
def test_a_fork_into_many(own: Server, count: int) -> None:
    sandbox = own.create()
    before = settled(own)
    ids = [f"child-{number}" for number in range(count)]

    with asking(own) as health, own.client() as client:
        answer = client.post(f"/v1/sandboxes/{sandbox}/fork", json={"ids": ids}, timeout=120)

    if answer.status_code == 429:
        assert answer.json()["error"]["code"] == "quota_exceeded"
    else:
        assert ids == [each["id"] for each in answer.json()["children"]], answer.json()
    assert health.failures == []
    assert health.quantile(0.99) < HEALTH_S
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda child: own.delete(f"/v1/sandboxes/{child}"), ids))
    wait_for_rest(own, before)
    own.end_sandboxes()


@pytest.mark.parametrize("each", [8, pytest.param(25, marks=pytest.mark.matrix)])
def test_many_terminals_that_flood(own: Server, each: int) -> None:
    sandboxes = [own.create() for _ in range(4)]
    before = settled(own)
    with contextlib.ExitStack() as open_, asking(own) as health:
        terminals: list[websocket.WebSocket] = [
            open_.enter_context(dial(own, LEGACY, f"sandbox={sandbox}"))
            for sandbox in sandboxes
            for _ in range(each)
        ]
        for terminal in terminals:
            terminal.send(json.dumps(typed(b"yes flood\n")))
        for terminal in terminals:
            for _ in range(20):
                terminal.recv()
    assert health.failures == []
    assert health.quantile(0.99) < HEALTH_S
    for sandbox in sandboxes:
        assert own.get(f"/v1/sandboxes/{sandbox}").json()["phase"] == "Ready"
    wait_for_rest(own, before)
    own.end_sandboxes()
