"""Deadlines of work stand still with their sandbox, on a real engine."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import mitos
from tests.integration.conftest import Server
from tests.integration.test_command import EXEC_PATH

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SPIN = "while :; do :; done"


def paused_in_between(sandbox: mitos.DirectSandbox, after_s: float, for_s: float) -> None:
    time.sleep(after_s)
    sandbox.pause()
    time.sleep(for_s)
    sandbox.resume()


def test_a_command_that_has_time_left_ends_well_after_a_pause(sandbox: mitos.DirectSandbox) -> None:
    with ThreadPoolExecutor(1) as pool:
        pausing = pool.submit(paused_in_between, sandbox, 1, 5)
        result = sandbox.exec("sleep 2; echo done", timeout=4)
        pausing.result()

    assert (result.exit_code, result.stdout) == (0, "done\n")


def test_a_command_that_has_none_left_ends_by_the_time_it_ran(sandbox: mitos.DirectSandbox) -> None:
    with ThreadPoolExecutor(1) as pool:
        pausing = pool.submit(paused_in_between, sandbox, 0.5, 4)
        began = time.monotonic()
        with pytest.raises(mitos.ExecutionDeadlineError):
            sandbox.exec(SPIN, timeout=2)
        took_s = time.monotonic() - began
        pausing.result()

    assert 6 <= took_s < 10


def test_a_cell_s_deadline_stands_still_too(sandbox: mitos.DirectSandbox) -> None:
    sandbox.run_code("1")
    with ThreadPoolExecutor(1) as pool:
        pausing = pool.submit(paused_in_between, sandbox, 0.5, 4)
        began = time.monotonic()
        execution = sandbox.run_code("while True: pass", timeout=2)
        took_s = time.monotonic() - began
        pausing.result()

    assert execution.error is not None
    assert execution.error.name == "TimeoutError"
    assert 6 <= took_s < 10


def keep_command(server: Server, sandbox: str, command: str, *, timeout_s: int) -> None:
    """Starts the kept command `job` and leaves it."""
    message = json.dumps({"command": command, "timeoutSeconds": timeout_s}).encode()
    headers = {
        "content-type": "application/connect+json",
        "x-sandbox-id": sandbox,
        "x-command-id": "job",
        "x-command-keep": "true",
    }
    body = b"\0" + len(message).to_bytes(4, "big") + message
    with httpx.stream("POST", server.url + EXEC_PATH, content=body, headers=headers) as answer:
        next(answer.iter_raw())


@pytest.mark.parametrize(
    "still",
    ["hibernated", pytest.param("checkpointed", marks=pytest.mark.matrix), "forked"],
)
def test_a_kept_command_goes_on_with_what_was_left(server: Server, still: str) -> None:
    sandbox = server.create()
    keep_command(server, sandbox.id, f"echo up; {SPIN}", timeout_s=6)
    time.sleep(1)
    if still == "hibernated":
        sandbox.hibernate()
        time.sleep(6)
        later = sandbox
    elif still == "checkpointed":
        checkpoint = sandbox.checkpoint()
        time.sleep(6)
        sandbox.restore(checkpoint)
        later = sandbox
    else:
        (later,) = sandbox.fork(1)

    command = next(each for each in later.commands() if each.id == "job")
    assert command.running
    assert command.exec_time_ms < 4500
    ended = later.command("job").wait()
    assert ended.exit_code == 124
    assert 6000 <= ended.exec_time_ms < 9000
    later.terminate()
    if later is not sandbox:
        sandbox.terminate()
