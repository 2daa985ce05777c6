"""Calls to a server that goes away for a while, and comes back or does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import mitos
import mitos.aio
from mitos._sdk import failure
from mitos._sdk.outage import BREAK_DELAYS_S, GIVE_UP_S, LAST_DELAY_S, Outage
from mitos.errors import AgentRunError, TransportFailedError
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import (
    Answer,
    ScriptedServer,
    cut,
    descriptor,
    envelope,
    frame_chunks,
    reply,
    stream,
)

AWAY_S = 0.3

RESTARTING = envelope(503, "internal", context={"retry_after_ms": 100})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def failed(kind: type[httpx.RequestError]) -> AgentRunError:
    return failure.transport_failed(kind("gone"), "http://box.test", None)


REFUSED, BROKEN = failed(httpx.ConnectError), failed(httpx.ReadError)
STOPPING = AgentRunError("restarts", "internal", status=503, context={"retry_after_ms": 1000})


def known_server() -> Outage:
    outage = Outage(Clock())
    outage.has_answered = True
    return outage


@pytest.mark.parametrize("may_repeat", [True, False])
def test_a_server_that_never_answered_is_not_waited_for(may_repeat: bool) -> None:
    with pytest.raises(TransportFailedError):
        Outage().attempts(may_repeat=may_repeat).delay_after(REFUSED)


@pytest.mark.parametrize("may_repeat", [True, False])
def test_what_was_not_sent_is_sent_again_with_growing_patience(may_repeat: bool) -> None:
    outage = known_server()
    attempts = outage.attempts(may_repeat=may_repeat)

    delays = [attempts.delay_after(REFUSED) for _ in range(10)]
    outage.clock.now = GIVE_UP_S + 1  # type: ignore[attr-defined]

    assert sorted(delays) == delays
    assert LAST_DELAY_S == delays[-1]
    with pytest.raises(TransportFailedError):
        attempts.delay_after(REFUSED)


def test_a_server_that_did_not_come_back_is_not_waited_for_again() -> None:
    outage = known_server()
    attempts = outage.attempts(may_repeat=False)
    attempts.delay_after(REFUSED)
    outage.clock.now = GIVE_UP_S + 1  # type: ignore[attr-defined]
    with pytest.raises(TransportFailedError):
        attempts.delay_after(REFUSED)

    with pytest.raises(TransportFailedError):
        outage.attempts(may_repeat=True).delay_after(REFUSED)


@pytest.mark.parametrize("sent", [BROKEN, STOPPING, failure.truncated("exec")])
def test_what_may_have_been_done_is_not_sent_again(sent: AgentRunError) -> None:
    attempts = known_server().attempts(may_repeat=False)

    with pytest.raises(AgentRunError) as caught:
        attempts.delay_after(sent)

    assert sent is caught.value
    assert sent.retryable


@pytest.mark.parametrize(
    ("outage", "delays"), [(known_server(), BREAK_DELAYS_S), (Outage(), BREAK_DELAYS_S[:1])]
)
def test_what_breaks_again_and_again_is_given_up(outage: Outage, delays: tuple[float, ...]) -> None:
    attempts = outage.attempts(may_repeat=True)

    assert delays == tuple(attempts.delay_after(BROKEN) for _ in delays)
    with pytest.raises(TransportFailedError):
        attempts.delay_after(BROKEN)


@pytest.mark.parametrize("sign", [REFUSED, STOPPING])
def test_what_may_be_repeated_is_through_several_restarts(sign: AgentRunError) -> None:
    attempts = known_server().attempts(may_repeat=True)

    for _ in range(5):
        attempts.delay_after(BROKEN)
        attempts.delay_after(sign)


def test_another_503_is_an_answer_like_any_other() -> None:
    disk = AgentRunError("the disk is broken", "internal", status=503)

    with pytest.raises(AgentRunError):
        known_server().attempts(may_repeat=True).delay_after(disk)


class Restarted:
    """A server that goes away and comes back at the same address."""

    def __init__(self) -> None:
        self.now = ScriptedServer()
        self._timer: threading.Timer | None = None

    def go_away(self, sdk: Sdk) -> None:
        """Stops, breaks every connection, and starts again after a moment."""
        earlier = self.now
        earlier.close()
        mitos.close_http_pools()
        if sdk.is_async:
            sdk.run(mitos.aio.close_http_pools())

        def come_back() -> None:
            self.now = ScriptedServer(int(earlier.url.rpartition(":")[2]), earlier)

        self._timer = threading.Timer(AWAY_S, come_back)
        self._timer.start()

    def close(self) -> None:
        """Stops for good."""
        if self._timer is not None:
            self._timer.join()
        self.now.close()


@pytest.fixture
def restarted() -> Iterator[Restarted]:
    server = Restarted()
    yield server
    server.close()


def said(text: str) -> Answer:
    return stream({"stdout": text}, {"exit": {}})


@pytest.mark.parametrize(
    ("call", "method", "path", "answer"),
    [
        (lambda sb: sb.exec("x"), "POST", "/sandbox.v1.Sandbox/ExecStream", said("aGk=")),
        (
            lambda sb: sb.run_code("x"),
            "POST",
            "/sandbox.v1.Sandbox/RunCodeStream",
            stream({"exitCode": 0}),
        ),
        (lambda sb: sb.files.write("x", "y"), "POST", "/sandbox.v1.Sandbox/WriteFile", stream({})),
        (lambda sb: sb.files.read("x"), "POST", "/sandbox.v1.Sandbox/ReadFile", stream({})),
        (lambda sb: sb.files.list("/"), "POST", "/sandbox.v1.Sandbox/List", reply({})),
        (lambda sb: sb.fork(id="k"), "POST", "/v1/sandboxes/sb-1/fork", reply(descriptor("k"))),
        (lambda sb: sb.terminate(), "DELETE", "/v1/sandboxes/sb-1", reply({})),
    ],
    ids=["exec", "run_code", "write", "read", "list", "fork", "terminate"],
)
def test_a_call_waits_for_a_server_that_is_restarted(
    sdk: Sdk, restarted: Restarted, call: Any, method: str, path: str, answer: Answer
) -> None:
    sandbox = sdk.create(restarted.now, id="sb-1")
    restarted.now.on(method, path, answer)
    restarted.go_away(sdk)

    sdk.run(call(sandbox))

    assert 1 == len(restarted.now.sent(path))


def test_a_call_that_may_be_repeated_goes_through_a_server_that_stops(
    sdk: Sdk, server: ScriptedServer
) -> None:
    sandbox = sdk.create(server, id="sb-1")
    route = "/v1/sandboxes/sb-1/fork"
    server.on("POST", route, RESTARTING, RESTARTING, cut(), reply(descriptor("kid")))

    (child,) = sdk.run(sandbox.fork(id="kid"))

    assert "kid" == child.id
    assert 1 == len({each.headers["idempotency-key"] for each in server.sent(route)})


def test_a_file_that_breaks_off_is_read_again_from_the_start(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    half = stream({"data": "YWI="}).chunks
    assert half is not None
    server.on_call("ReadFile", frame_chunks(half[0], is_cut=True), stream({"data": "YWJj"}))

    assert "abc" == sdk.run(sandbox.files.read("x"))


@pytest.mark.parametrize(
    ("call", "rpc"),
    [
        (lambda sb: sb.exec("x"), "ExecStream"),
        (lambda sb: sb.run_code("x"), "RunCodeStream"),
        (lambda sb: sb.files.write("x", "y"), "WriteFile"),
    ],
    ids=["exec", "run_code", "write"],
)
@pytest.mark.parametrize("end", [cut(), frame_chunks(is_cut=True), RESTARTING])
def test_what_may_be_half_done_fails_with_an_error_that_says_so(
    sdk: Sdk, server: ScriptedServer, call: Any, rpc: str, end: Answer
) -> None:
    sandbox = sdk.create(server, id="sb-1")
    server.on_call(rpc, end)

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(call(sandbox))

    assert caught.value.retryable
    assert 1 == len(server.calls(rpc))


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("internal", 503, True),
        ("internal", 500, False),
        ("canceled", 499, True),
        ("rate_limited", 429, True),
        ("not_found", 404, False),
        ("exec_timeout", None, False),
        ("brand_new", 429, True),
        ("brand_new", None, False),
    ],
)
def test_an_error_says_whether_the_same_call_may_succeed_later(
    code: str, status: int | None, expected: bool
) -> None:
    assert expected is mitos.errors.error_for_code(code, "m", status=status).retryable
