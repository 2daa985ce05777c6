"""Processes, Signal and Vitals over the wire, on real sandboxes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.server import calling
from tests.server.calling import JSON_STREAM, SERVICE, envelope
from tests.server.serving import DEADLINE_S, Server
from tests.server.waiting import until

BUSY = "nohup sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"


def processes(server: Server, sandbox: str) -> dict[int, dict[str, Any]]:
    answer = calling.unary(server, "Processes", sandbox, {})
    assert answer.status_code == 200, answer.text
    return {row["pid"]: row for row in answer.json()["processes"]}


def signal(server: Server, sandbox: str, pid: int, number: int) -> httpx.Response:
    return calling.unary(server, "Signal", sandbox, {"pid": pid, "signal": number})


def supervisors(server: Server, sandbox: str) -> list[int]:
    """The agent's own processes that watch over running commands."""
    found = processes(server, sandbox).values()
    return [row["pid"] for row in found if row["command"] == "mitos-exec"]


def start(server: Server, sandbox: str, command: str) -> int:
    """A background process's id."""
    return int(calling.run(server, sandbox, command)[0])


def vitals(server: Server, sandbox: str, count: int, interval_s: int = 1) -> list[dict[str, Any]]:
    """The first samples of a stream that is then left."""
    headers = {"Content-Type": JSON_STREAM, "X-Sandbox-Id": sandbox}
    body = envelope({"intervalSeconds": interval_s})
    samples: list[dict[str, Any]] = []
    with (
        server.client(headers=headers) as client,
        client.stream("POST", f"{SERVICE}/Vitals", content=body) as answer,
    ):
        data = b""
        for chunk in answer.iter_raw():
            data += chunk
            while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
                samples.append(json.loads(data[5:end]))
                data = data[end:]
            if len(samples) >= count:
                return samples[:count]
    raise AssertionError(f"the stream ended after {samples}")


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["code"])


def test_a_busy_process_shows_its_share_and_an_idle_one_none(server: Server, sandbox: str) -> None:
    busy = start(server, sandbox, BUSY)
    idle = start(server, sandbox, "nohup sleep 600 >/dev/null 2>&1 & echo $!")

    until(lambda: processes(server, sandbox)[busy].get("cpuPercent", 0) > 20)
    found = processes(server, sandbox)
    assert found[busy]["cpuPercent"] <= 150
    assert found[idle].get("cpuPercent", 0) == 0
    assert (found[idle]["command"], found[idle]["state"]) == ("sleep", "S")
    assert int(found[idle]["rssBytes"]) > 100_000
    assert found[1]["command"] == "agent"


def test_arguments_and_variables_are_never_shown(server: Server, sandbox: str) -> None:
    calling.run(server, sandbox, "SECRET=hidden nohup sleep 601 >/dev/null 2>&1 &")

    answer = calling.unary(server, "Processes", sandbox, {}).text
    assert "sleep" in answer
    assert "601" not in answer
    assert "hidden" not in answer


def test_a_stopped_process_is_t_and_goes_on_when_continued(server: Server, sandbox: str) -> None:
    pid = start(server, sandbox, BUSY)

    assert signal(server, sandbox, pid, 19).status_code == 200
    until(lambda: processes(server, sandbox)[pid]["state"] == "T")
    assert signal(server, sandbox, pid, 18).status_code == 200
    until(lambda: processes(server, sandbox)[pid]["state"] == "R")
    assert signal(server, sandbox, pid, 9).status_code == 200
    until(lambda: pid not in processes(server, sandbox))


@pytest.mark.parametrize(
    ("pid", "number", "expected"),
    [
        (1, 9, (400, "invalid_argument")),
        (0, 9, (400, "invalid_argument")),
        (-5, 9, (400, "invalid_argument")),
        (7, 0, (400, "invalid_argument")),
        (7, 65, (400, "invalid_argument")),
        (30_000, 15, (404, "not_found")),
    ],
)
def test_bad_signals_are_refused_with_their_code(
    server: Server, sandbox: str, pid: int, number: int, expected: tuple[int, str]
) -> None:
    assert expected == error(signal(server, sandbox, pid, number))


def test_a_supervisor_cannot_be_signalled(server: Server, sandbox: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(calling.run, server, sandbox, "sleep 1")
        until(lambda: supervisors(server, sandbox))
        answers = [error(signal(server, sandbox, pid, 9)) for pid in supervisors(server, sandbox)]
        ended = running.result()

    assert (403, "permission_denied") in answers
    assert ended[2] == 0


def test_vitals_measure_memory_cpu_and_processes(server: Server, sandbox: str) -> None:
    (quiet,) = vitals(server, sandbox, 1)
    start(server, sandbox, BUSY)
    calling.run(server, sandbox, "head -c 80000000 /dev/zero > /tmp/big")

    _, busy = vitals(server, sandbox, 2)
    assert int(quiet["memTotalBytes"]) == 512 << 20
    assert int(busy["memUsedBytes"]) - int(quiet["memUsedBytes"]) > 70_000_000
    assert busy["processCount"] > quiet["processCount"]
    assert 20 < busy["cpuPercent"] <= 100
    assert abs(int(busy["sampledAtUnix"]) - time.time()) < DEADLINE_S


def test_vitals_of_a_sandbox_that_ends_say_so(server: Server, sandbox: str) -> None:
    headers = {"Content-Type": JSON_STREAM, "X-Sandbox-Id": sandbox}
    with (
        server.client(headers=headers) as client,
        client.stream("POST", f"{SERVICE}/Vitals", content=envelope({})) as answer,
    ):
        chunks = answer.iter_raw()
        first = next(chunks)
        assert server.delete(f"/v1/sandboxes/{sandbox}").status_code == 200
        body = first + b"".join(chunks)

    _, end = calling.messages(body)
    assert end["error"]["code"] == "not_found"
