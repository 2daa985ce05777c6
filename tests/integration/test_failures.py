"""Every machine-side failure of `docs/reference/failures.md`: who is told what, and how soon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import mitos
from mitos.host import process
from tests.integration.conftest import Server
from tests.integration.test_faults import kernel_process, when_running

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs/reference/failures.md"
NEXT_CALL_S = 2.0
"""How soon the page says a new call on an idle machine is told."""

BACK_WITHIN_S = 30.0
"""A program inside stops the agent for 20 s."""

SLACK_S = 1.0
"""What the way there and back may take on a busy host."""


@dataclass(frozen=True)
class Row:
    """A row of the page's table."""

    code: str
    cause: str
    within_s: float
    is_kept: bool


def read_page() -> dict[str, Row]:
    """The table, by failure."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    table = {}
    for line in rows:
        failure, told, cause, within, fate = (cell.strip() for cell in line.split("|")[1:-1])
        assert fate in ("ends", "is kept")
        seconds = float(within.removesuffix(" s")) if within else 0.0
        table[failure] = Row(told.strip("`"), cause, seconds, fate == "is kept")
    return table


@dataclass
class Scene:
    """One sandbox that is about to fail."""

    server: Server
    sandbox: mitos.DirectSandbox
    kernel: int


_Failing = Callable[[Scene], object]


def send(number: signal.Signals) -> _Failing:
    return lambda scene: os.kill(scene.kernel, number)


def inside(command: str) -> _Failing:
    def fail(scene: Scene) -> None:
        scene.sandbox.exec_background(command)

    return fail


FAILURES: dict[str, tuple[_Failing, _Failing]] = {
    "the engine's process is killed": (send(signal.SIGKILL), lambda _: None),
    "the engine's process is stopped": (send(signal.SIGSTOP), send(signal.SIGCONT)),
    "a program inside kills the agent": (inside("kill -9 1"), lambda _: None),
    "a program inside stops the agent": (
        inside("sleep 0.3; kill -STOP 1; sleep 20; kill -CONT 1"),
        lambda _: None,
    ),
    "the link is filled with garbage": (
        inside("head -c 1000 /dev/zero | tr '\\0' '\\377' > /proc/1/fd/1"),
        lambda _: None,
    ),
    "the memory limit is reached": (
        inside("python3 -c \"x = b'1' * (2 << 30)\""),
        lambda _: None,
    ),
}
"""How each failure is made, and undone where it does not end by itself."""


def test_the_page_and_the_tests_have_the_same_failures() -> None:
    assert {*FAILURES, "the host stands still for 20 s"} == set(read_page())


def failure_of(call: Future[object]) -> mitos.AgentRunError:
    error = call.exception(60)
    assert isinstance(error, mitos.AgentRunError), error or call.result()
    return error


def attempt(sandbox: mitos.DirectSandbox) -> str:
    """What a new call says: its output, or the code of its error."""
    try:
        return sandbox.exec("echo alive").stdout.strip()
    except mitos.AgentRunError as exc:
        return exc.code


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_told_as_the_page_says(server: Server, failure: str) -> None:
    row, (fail, undo) = read_page()[failure], FAILURES[failure]
    sandbox = server.create()
    scene = Scene(server, sandbox, kernel_process(server, sandbox))
    sandbox.exec("rm /tmp/large")
    with ThreadPoolExecutor(1) as pool:
        call: Future[object] = pool.submit(sandbox.exec, "sleep 999")
        when_running(server, sandbox, lambda: None)
        began = time.monotonic()
        fail(scene)
        error = failure_of(call)
        took_s = time.monotonic() - began

    assert (error.code, error.cause) == (row.code, row.cause)
    assert took_s < row.within_s + SLACK_S
    assert sandbox.id in str(error)
    assert error.remediation
    began = time.monotonic()
    assert attempt(sandbox) == row.code
    assert time.monotonic() - began < NEXT_CALL_S + SLACK_S
    undo(scene)
    if row.is_kept:
        deadline = time.monotonic() + BACK_WITHIN_S
        while attempt(sandbox) != "alive":
            assert time.monotonic() < deadline, "it does not answer again"
            time.sleep(0.1)
        assert "sleep 999" not in sandbox.exec("ps axo args").stdout
        sandbox.terminate()
    else:
        with pytest.raises(mitos.NotFoundError) as caught:
            sandbox.exec("true")
        assert caught.value.cause == row.cause


def test_a_new_call_on_a_stopped_machine_is_told_at_once_and_it_can_be_ended(
    server: Server,
) -> None:
    sandbox = server.create()
    os.kill(kernel_process(server, sandbox), signal.SIGSTOP)

    began = time.monotonic()
    assert attempt(sandbox) == "canceled"
    told_s = time.monotonic() - began
    sandbox.terminate()

    # With every CPU of the host wanted more than twice, patience is longer.
    assert told_s < NEXT_CALL_S + SLACK_S or is_crowded(told_s)
    assert time.monotonic() - began - told_s < NEXT_CALL_S + SLACK_S


def is_crowded(told_s: float) -> bool:
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1) and told_s < 15


def test_a_host_that_stands_still_loses_no_sandbox(server: Server) -> None:
    row = read_page()["the host stands still for 20 s"]
    assert (row.code, row.is_kept) == ("nothing", True)
    sandboxes = [server.create() for _ in range(3)]
    engines = process.find(f"--root={(server.home / 'run').resolve() / 'runsc'}")
    everything = [server.process.pid, *engines]
    assert len(engines) >= len(sandboxes)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sandboxes[0].exec, "sleep 3; echo done", timeout=60)
        when_running(server, sandboxes[0], lambda: None)
        stopped = [pid for pid in everything if state(pid) != "T"]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(20)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        assert call.result(30).stdout == "done\n"
    assert [attempt(each) for each in sandboxes] == ["alive"] * 3
    for each in sandboxes:
        each.terminate()


def state(pid: int) -> str:
    """The letter of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
