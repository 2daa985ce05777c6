"""When a reader of a command connects again, and from where."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from mitos._sdk.failure import transport_failed, truncated
from mitos._sdk.folding import ExecFold
from mitos._sdk.outage import GIVE_UP_S
from mitos._sdk.reconnecting import Progress
from mitos.errors import AgentRunError, TruncatedStreamError

HEADERS = {"x-command-id": "job"}
BROKEN = truncated("exec")
CUT = transport_failed(httpx.ReadError("cut"), "http://box.test", None)
STOPPING = AgentRunError("restarts", "internal", status=503, context={"retry_after_ms": 1000})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(*, attaches: bool = False, clock: Clock | None = None) -> Progress:
    return Progress(ExecFold(0), attaches=attaches, clock=clock or Clock())


def output(data: bytes) -> dict[str, Any]:
    return {"stdout": base64.b64encode(data).decode()}


def test_a_command_is_started_once_and_then_attached_to() -> None:
    reader = progress()

    assert reader.headers("job") == {"X-Command-Id": "job", "X-Command-Keep": "true"}
    reader.take_headers(HEADERS)
    reader.take(output(b"abc"))
    reader.take({"stderr": base64.b64encode(b"de").decode()})
    assert reader.headers("job") == {"X-Command-Id": "job", "X-Command-Offset": "5"}


def test_what_is_lost_is_counted_and_skipped() -> None:
    reader = progress(attaches=True)

    reader.take_headers({**HEADERS, "x-command-offset": "100", "x-command-lost": "100"})
    reader.take(output(b"abc"))

    assert reader.lost_bytes == 100
    assert reader.headers("job")["X-Command-Offset"] == "103"


@pytest.mark.parametrize("odd", ["-1", "9" * 5000, "٣", "", "1.5"])
def test_odd_numbers_of_a_server_count_for_nothing(odd: str) -> None:
    reader = progress(attaches=True)

    reader.take_headers({**HEADERS, "x-command-offset": odd, "x-command-lost": odd})

    assert reader.lost_bytes == 0
    assert reader.headers("job")["X-Command-Offset"] == "0"


def test_nothing_is_repeated_before_the_server_said_that_it_keeps_commands() -> None:
    reader = progress()

    with pytest.raises(TruncatedStreamError):
        reader.delay_after(BROKEN)
    reader.take_headers({})
    reader.take(output(b"abc"))
    with pytest.raises(TruncatedStreamError):
        reader.delay_after(BROKEN)


def test_a_start_that_broke_is_looked_for_before_it_is_made_again() -> None:
    reader = progress()

    reader.delay_after(CUT)
    looks = reader.attaches, reader.headers("job")
    reader.take_headers({})
    reader.delay_after(AgentRunError("no such command", "not_found", status=404))

    assert looks == (True, {"X-Command-Id": "job", "X-Command-Offset": "0"})
    assert not reader.attaches
    assert reader.headers("job") == {"X-Command-Id": "job", "X-Command-Keep": "true"}


def test_a_start_that_broke_but_happened_goes_on() -> None:
    reader = progress()

    reader.delay_after(CUT)
    reader.take_headers(HEADERS)
    reader.take(output(b"abc"))

    assert reader.headers("job")["X-Command-Offset"] == "3"


def test_a_server_that_knows_no_ids_is_not_asked_to_start_twice() -> None:
    reader = progress()

    reader.delay_after(CUT)
    reader.take_headers({})
    with pytest.raises(AgentRunError) as caught:
        reader.take({"exit": {}})

    assert caught.value is CUT
    with pytest.raises(AgentRunError):
        reader.delay_after(caught.value)


def test_a_start_that_a_stopping_server_refused_is_looked_for_too() -> None:
    reader = progress()

    reader.take_headers({})
    reader.delay_after(STOPPING)

    assert reader.attaches


def test_a_broken_connection_is_replaced_with_growing_patience() -> None:
    clock = Clock()
    reader = progress(clock=clock)
    reader.take_headers(HEADERS)

    delays = [reader.delay_after(BROKEN) for _ in range(8)]
    clock.now = GIVE_UP_S + 1

    assert delays == sorted(delays)
    assert delays[-1] == 2.0
    with pytest.raises(TruncatedStreamError):
        reader.delay_after(BROKEN)


def test_a_connection_that_works_ends_the_patience_anew() -> None:
    clock = Clock()
    reader = progress(clock=clock)
    reader.take_headers(HEADERS)
    first = reader.delay_after(BROKEN)
    clock.now = GIVE_UP_S + 1

    reader.take_headers(HEADERS)

    assert reader.delay_after(BROKEN) == first


def test_the_servers_own_refusal_is_final() -> None:
    reader = progress(attaches=True)
    reader.take_headers(HEADERS)

    with pytest.raises(AgentRunError):
        reader.delay_after(AgentRunError("gone", "not_found", status=404))


def test_a_paused_sandbox_is_waited_for_as_long_as_it_takes() -> None:
    clock = Clock()
    reader = progress(clock=clock)
    reader.take_headers(HEADERS)
    paused = AgentRunError("it is paused", "invalid_input", status=400)

    for _ in range(100):
        clock.now += GIVE_UP_S
        assert reader.delay_after(paused) <= 2.0


def test_a_command_is_not_started_in_a_paused_sandbox() -> None:
    reader = progress()

    with pytest.raises(AgentRunError):
        reader.delay_after(AgentRunError("it is paused", "invalid_input", status=400))
