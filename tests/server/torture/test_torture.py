"""The port under torture: odd clients against odd programs, and then anybody asks for its health.

Each case is a client's request and manner, drawn from `http1`, `http2` or `websocket`, against a
program in a real sandbox that answers in a way drawn from `program`, or against a route of the
server's own. Whatever comes of it costs its own connection: the next client is answered within a
second, and after a batch no request, no connection and no descriptor is left.

A case is drawn from a seed, which a failure prints.
"""

from __future__ import annotations

import http.client
import math
import random
import secrets
import time
from types import ModuleType

import pytest

from tests.server.at_rest import settled, wait_for_rest
from tests.server.serving import Server
from tests.server.torture import http1, http2, program, websocket
from tests.server.torture.conftest import KEY, PORT

CLIENTS: dict[str, ModuleType] = {"http1": http1, "http2": http2, "websocket": websocket}
CASES = 50
HEALTH_S = 1.0
OWN_ROUTES = (
    "/v1/health",
    "/v1/sandboxes",
    "/v1/events?follow=1",
    "/v1/fork",
    "/v1/templates",
    "/v1/pty?sandbox={id}",
    "/v1/pty?sandbox=none",
    "/v1/sandboxes/none/fork",
    "/v1/sandboxes/%ff%00",
    "/sandbox.v1.Sandbox/Exec?sandbox={id}",
    "/sandbox.v1.Sandbox/ExecStream",
    "/sandbox.v1.Sandbox/WriteFile",
    "/sandbox.v1.Sandbox/List",
    "//evil.example/",
    "*",
)


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 5))]
)
@pytest.mark.parametrize("transport", CLIENTS)
def test_whatever_is_asked_the_next_client_is_answered(
    tortured: Server, sandbox: str, transport: str, seed: int
) -> None:
    _torture(tortured, sandbox, transport, f"{transport}-{seed}", CASES)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("transport", CLIENTS)
def test_the_same_with_seeds_that_nobody_has_tried(
    tortured: Server, sandbox: str, transport: str
) -> None:
    _torture(tortured, sandbox, transport, secrets.token_hex(4), 1500)


def _torture(server: Server, sandbox: str, transport: str, seed: str, cases: int) -> None:
    before = settled(server)
    for number in range(cases):
        name = _case(server, sandbox, transport, random.Random(f"{seed}-{number}"))
        took = _health(server)
        assert took < HEALTH_S, f"{transport} {seed}-{number}: {name}"
    wait_for_rest(server, before)
    assert _plain_answer(server, sandbox) == b"plain"


def _case(server: Server, sandbox: str, transport: str, dice: random.Random) -> str:
    """Runs one case; its name."""
    client = CLIENTS[transport]
    path = _path(dice, sandbox, is_websocket=transport == "websocket")
    head, body, name = client.request(dice, path, KEY)
    manner = dice.choice(client.MANNERS)
    client.act(("127.0.0.1", server.port), head, body, manner)
    return f"{path} {name} {manner}"


def _path(dice: random.Random, sandbox: str, *, is_websocket: bool) -> str:
    if dice.random() < 0.2:
        return dice.choice(OWN_ROUTES).replace("{id}", sandbox)
    names = list(program.ANSWERS)
    if is_websocket or dice.random() < 0.1:
        names = [f"socket-{name}" for name in program.SOCKET_ANSWERS] + names[:10]
    answer, manner = dice.choice(names), dice.choice(program.MANNERS)
    return f"/v1/sandboxes/{sandbox}/expose/{PORT}/answer/{answer}/{manner}"


def _health(server: Server) -> float:
    """How long the server took to say that it is well; infinite when it did not."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", "/v1/health")
        is_well = connection.getresponse().status == 200
    except OSError:
        is_well = False
    finally:
        connection.close()
    return time.monotonic() - started if is_well else math.inf


def _plain_answer(server: Server, sandbox: str) -> bytes:
    return server.get(f"/v1/sandboxes/{sandbox}/expose/{PORT}/answer/plain/closes").content
