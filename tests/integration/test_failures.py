"""Every machine-side failure of `docs/reference/failures.md`: who is told what, and how soon."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import mitos
from mitos.agent import client
from mitos.host import process
from mitos.images import erofs
from tests.integration.conftest import Server
from tests.integration.test_faults import kernel_process, until
from tests.server.serving import Server as InProcess
from tests.server.serving import serving

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs/reference/failures.md"
NEXT_CALL_S = 2.0
"""How soon the page says a new call on an idle machine is told."""

AWAY_S = 15
"""For how long a program inside keeps the agent from running."""

BACK_WITHIN_S = 30.0

TOLD_WITHIN_S = 15.0

SECONDS = re.compile(r"([\d.]+) s\b")

TRACER = """
import ctypes, sys, time
attach, wait_for_threads = 16, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
time.sleep(0.3)
if libc.ptrace(attach, 1, None, None) != 0:
    sys.exit(f"attach: errno {ctypes.get_errno()}")
if sys.argv[1] == "wait":
    libc.waitpid(1, None, wait_for_threads)
    time.sleep(float(sys.argv[2]))
"""
TRACE = "python3 /tmp/trace.py"
"""Traces process 1: `wait SECONDS` as a debugger does, `go` ends before it has looked at it."""

SLACK_S = 1.0
"""What the way there and back may take on a busy host."""


@dataclass(frozen=True)
class Row:
    """A row of the page's table."""

    code: str
    cause: str
    within_s: float
    fate: str


def read_page() -> dict[str, Row]:
    """The table, by failure."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    table = {}
    for line in rows:
        failure, told, cause, within, fate = (cell.strip() for cell in line.split("|")[1:-1])
        assert fate in ("ends", "is kept", "is not made")
        seconds = float(within.removesuffix(" s")) if within else 0.0
        table[failure] = Row(told.strip("`"), cause, seconds, fate)
    return table


@dataclass
class Scene:
    """One sandbox that is about to fail.

    Attributes:
        sandbox: that fails.
        process: of it on the host, where the failure is about one.
    """

    sandbox: mitos.DirectSandbox
    process: int = 0


_Act = Callable[[Scene], object]


def send(number: signal.Signals) -> _Act:
    return lambda scene: os.kill(scene.process, number)


def inside(command: str) -> _Act:
    return lambda scene: scene.sandbox.exec_background(command)


def nothing(_: Scene) -> None:
    """It ends by itself, or not at all."""


KERNEL_FAILURES: dict[str, tuple[_Act, _Act]] = {
    "the engine's process is killed": (send(signal.SIGKILL), nothing),
    "the engine's process is stopped": (send(signal.SIGSTOP), send(signal.SIGCONT)),
}
GOFER_FAILURES: dict[str, tuple[_Act, _Act]] = {
    "the gofer is killed": (send(signal.SIGKILL), nothing),
    "the gofer is stopped": (send(signal.SIGSTOP), send(signal.SIGCONT)),
}
GUEST_FAILURES: dict[str, tuple[_Act, _Act]] = {
    "a program inside kills the agent": (inside("kill -9 1"), nothing),
    "the link is filled with garbage": (
        inside("head -c 1000 /dev/zero | tr '\\0' '\\377' > /proc/1/fd/1"),
        nothing,
    ),
    "the memory limit is reached": (
        inside("python3 -c \"x = b'1' * (2 << 30)\""),
        nothing,
    ),
}
LASTING_FAILURES: dict[str, tuple[_Act, _Act]] = {
    "a program inside stops the agent": (
        inside(f"sleep 0.3; kill -STOP 1; sleep {AWAY_S}; kill -CONT 1"),
        nothing,
    ),
    "a program inside traces the agent": (inside(f"{TRACE} wait {AWAY_S}"), nothing),
}
"""How each failure is made, and undone where it does not end by itself."""

FAILURES = {**KERNEL_FAILURES, **GOFER_FAILURES, **GUEST_FAILURES, **LASTING_FAILURES}
OTHERS = {"the host stands still for 20 s", "its clock is 10 minutes off"}


def test_the_page_and_the_tests_have_the_same_failures() -> None:
    assert {*FAILURES, *OTHERS} == set(read_page())


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


def fail_and_look(scene: Scene, failure: str) -> None:
    """Makes a failure happen, and looks whether all is as the page says."""
    row, (fail, undo), sandbox = read_page()[failure], FAILURES[failure], scene.sandbox
    with ThreadPoolExecutor(1) as pool:
        call: Future[object] = pool.submit(sandbox.exec, "sleep 999")
        until_it_runs(sandbox)
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
    if row.fate == "is kept":
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


def until_it_runs(sandbox: mitos.DirectSandbox) -> None:
    until(lambda: "sleep" in sandbox.exec("ps axo comm").stdout, "the command runs")


@pytest.mark.parametrize("failure", KERNEL_FAILURES)
def test_a_failure_of_the_kernel_is_told_as_the_page_says(server: Server, failure: str) -> None:
    sandbox = server.create()
    kernel = kernel_process(server, sandbox)
    sandbox.exec("rm /tmp/large")

    fail_and_look(Scene(sandbox, kernel), failure)


@pytest.mark.parametrize("failure", GUEST_FAILURES)
def test_a_failure_inside_is_told_as_the_page_says(server: Server, failure: str) -> None:
    fail_and_look(Scene(server.create()), failure)


def test_failures_that_last_are_told_as_the_page_says(server: Server) -> None:
    """At the same time, and beside a tracer that leaves the agent stopped for good."""
    left = tracer_of(server.create())
    left.sandbox.exec_background(f"{TRACE} go")
    with ThreadPoolExecutor() as pool:
        work = [
            pool.submit(fail_and_look, tracer_of(server.create()), failure)
            for failure in LASTING_FAILURES
        ]
        for each in work:
            each.result()

    assert attempt(left.sandbox) == "canceled"
    left.sandbox.terminate()


def tracer_of(sandbox: mitos.DirectSandbox) -> Scene:
    """A scene with a program that traces process 1."""
    sandbox.files.write("/tmp/trace.py", TRACER)
    return Scene(sandbox)


@pytest.fixture(scope="module")
def folder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server of this process whose machines have a folder as root, and so a gofer each."""
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erofs, "is_available", lambda: False)
        with serving(folder, warm_per_template=0, max_blanks_per_spec=0) as running:
            yield running


@pytest.mark.parametrize("failure", GOFER_FAILURES)
def test_a_failure_of_the_gofer_is_told_as_the_page_says(
    folder_server: InProcess, failure: str
) -> None:
    sandbox = mitos.create("python", base_url=folder_server.url, api_key="")
    fail_and_look(Scene(sandbox, gofer_process(folder_server, sandbox)), failure)


def test_a_file_operation_that_needs_a_stopped_gofer_is_told(folder_server: InProcess) -> None:
    with mitos.create("python", base_url=folder_server.url, api_key="") as sandbox:
        os.kill(gofer_process(folder_server, sandbox), signal.SIGSTOP)
        began = time.monotonic()

        with pytest.raises(mitos.AgentRunError) as caught:
            sandbox.exec("find / -xdev")

        assert caught.value.cause == read_page()["the gofer is stopped"].cause
        assert time.monotonic() - began < TOLD_WITHIN_S


def gofer_process(server: InProcess, sandbox: mitos.DirectSandbox) -> int:
    """The host's process that serves the files of the sandbox."""
    machine = server.tenant._find(sandbox.id).machine.id
    argument = f"--bundle={(server.node.settings.home / 'run').resolve() / 'machines' / machine}"
    (gofer,) = [pid for pid in process.find(argument) if b"\0gofer\0" in command_line(pid)]
    return gofer


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_machine_whose_clock_is_off_is_not_served_and_its_source_goes_on(
    folder_server: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's clock is shifted, which comes to the same."""
    row = read_page()["its clock is 10 minutes off"]
    with mitos.create("python", base_url=folder_server.url, api_key="") as sandbox:
        kept = sandbox.checkpoint()
        for shift_ns in (600 * 10**9, -600 * 10**9):
            clock = SimpleNamespace(time_ns=lambda by=shift_ns: time.time_ns() + by)
            with monkeypatch.context() as patch:
                patch.setattr(client, "time", clock)
                for verb in (
                    lambda: mitos.create("python", base_url=folder_server.url, api_key=""),
                    lambda: sandbox.fork(1),
                    lambda: sandbox.restore(kept),
                ):
                    began = time.monotonic()
                    with pytest.raises(mitos.AgentRunError) as caught:
                        verb()
                    assert caught.value.code == row.code
                    assert SECONDS.sub("N s", row.cause) in SECONDS.sub("N s", str(caught.value))
                    assert off_s(str(caught.value)) == pytest.approx(off_s(row.cause), abs=60)
                    assert time.monotonic() - began < row.within_s + SLACK_S
            assert attempt(sandbox) == "alive"


def off_s(text: str) -> float:
    """The seconds that a text says."""
    found = SECONDS.search(text)
    assert found, text
    return float(found[1])


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


@pytest.mark.matrix
def test_a_host_that_stands_still_loses_no_sandbox(server: Server) -> None:
    row = read_page()["the host stands still for 20 s"]
    assert (row.code, row.fate) == ("nothing", "is kept")
    sandboxes = [server.create() for _ in range(3)]
    engines = process.find(f"--root={(server.home / 'run').resolve() / 'runsc'}")
    everything = [server.process.pid, *engines]
    assert len(engines) >= len(sandboxes)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sandboxes[0].exec, "sleep 3; echo done", timeout=60)
        until_it_runs(sandboxes[0])
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
