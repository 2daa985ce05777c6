"""`mitos service` under Debian's systemd: installed, restarted under load, removed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import mitos_home, why_no_real_sandboxes
from tests.service.machine import Machine, booted, why_no_machine

HOME = "/srv/mitos"
URL = "http://127.0.0.1:8080"
DEADLINE_S = 120

COUNTER = """
import itertools, os, pathlib, time
for number in itertools.count():
    pathlib.Path("count.new").write_text(f"{os.getpid()} {number}")
    os.replace("count.new", "count")
    time.sleep(0.05)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if why := why_no_real_sandboxes() or why_no_machine():
        pytest.skip(why)
    with booted(tmp_path) as found:
        for name in ("bin", "rootfs"):
            found.run("mkdir", "-p", f"{HOME}/{name}")
            found.run("mount", "--bind", str(mitos_home() / name), f"{HOME}/{name}")
        # systemd makes folders of its own for the first service that has namespaces.
        found.run("systemd-run", "--wait", "--collect", "--property=PrivateTmp=yes", "true")
        yield found


def install(machine: Machine, *options: str) -> None:
    machine.mitos("service", "install", "--no-setup", "--home", HOME, *options)


def status(machine: Machine) -> dict[str, object]:
    said = machine.mitos("service", "status", "--output", "json", check=False).stdout
    return dict(json.loads(said))


def census(machine: Machine) -> set[str]:
    words = ("env", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-m", "tests.service.census")
    return set(json.loads(machine.run(*words, HOME, str(mitos_home())).stdout))


def counter(machine: Machine) -> str:
    """A new sandbox with a program that counts; the sandbox's id."""
    made = machine.mitos("sandbox", "create").stdout.strip()
    start = f"cd /workspace && (setsid python3 -c '{COUNTER}' >/dev/null 2>&1 &)"
    machine.mitos("sandbox", "exec", made, start)
    return made


def count(machine: Machine, sandbox: str) -> tuple[int, int]:
    """The id of the program that counts, and how far it is."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        said = machine.mitos("sandbox", "exec", sandbox, "cat /workspace/count", check=False)
        if said.returncode == 0:
            pid, number = said.stdout.split()
            return int(pid), int(number)
        assert time.monotonic() < deadline, said.stderr
        time.sleep(0.1)


@contextlib.contextmanager
def load(machine: Machine) -> Iterator[dict[str, int]]:
    """Clients connect for the time of the block; what became of them is there afterwards."""
    clients = subprocess.Popen(
        machine.python("-m", "tests.service.load", URL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    counts: dict[str, int] = {}
    try:
        assert clients.stdout is not None
        assert clients.stdout.readline() == "begun\n"
        yield counts
        said, _ = clients.communicate("stop\n", timeout=DEADLINE_S)
        counts.update(json.loads(said))
    finally:
        clients.kill()
        clients.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("restarts", "sandboxes"),
    [
        pytest.param(2, 2, marks=[pytest.mark.real, pytest.mark.timeout(300)], id="twice"),
        pytest.param(10, 5, marks=[pytest.mark.crash, pytest.mark.timeout(900)], id="ten-times"),
    ],
)
def test_restarts_refuse_nobody_and_lose_nothing(
    machine: Machine, restarts: int, sandboxes: int
) -> None:
    """No connection is refused, no sandbox ends; the service then goes without a trace."""
    before = census(machine)
    install(machine)
    made = [counter(machine) for _ in range(sandboxes)]
    counted = {each: count(machine, each) for each in made}

    with load(machine) as outcomes:
        for _ in range(restarts):
            machine.run("systemctl", "restart", "mitos")
            assert sandboxes == status(machine)["sandboxes"], machine.journal("mitos")

    print(outcomes)
    assert [] == [each for each in outcomes if each.startswith("not connected")]
    assert outcomes["answered 200"] > 10 * restarts
    for each in made:
        pid, number = count(machine, each)
        assert counted[each][0] == pid
        assert counted[each][1] < number
    machine.mitos("service", "uninstall", "--end")
    assert set() == census(machine) - before
    assert set() == before - census(machine)


@pytest.mark.real
@pytest.mark.timeout(300)
def test_a_service_is_installed_told_and_removed(machine: Machine) -> None:
    nothing = machine.mitos("service", "status", check=False)
    assert (1, True) == (nothing.returncode, "mitos service install" in nothing.stderr)
    install(machine)
    install(machine)  # again is no error, and no restart
    first = status(machine)
    assert "active (running)" == first["service"] == first["socket"]
    assert (True, "ok", 0) == (first["starts_with_machine"], first["health"], first["sandboxes"])
    assert first["restarts"] == 0

    sandbox = counter(machine)
    # A server that is killed is started again by itself, with its sandboxes.
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "mitos")
    pid, _ = count(machine, sandbox)
    assert status(machine)["sandboxes"] == 1
    # A change of an option restarts the server, and nothing else.
    install(machine, "--", "--idle-timeout", "600")
    assert count(machine, sandbox)[0] == pid
    assert "--idle-timeout 600" in machine.run("systemctl", "cat", "mitos").stdout

    refused = machine.mitos("service", "uninstall", check=False)
    assert (1, True) == (refused.returncode, "--end" in refused.stderr)
    assert count(machine, sandbox)[0] == pid
    machine.mitos("service", "uninstall", "--leave")
    machine.mitos("service", "uninstall")
    install(machine, "--no-now")
    machine.run("systemctl", "start", "mitos.socket")
    # The first client starts the server, which takes over what was left.
    assert count(machine, sandbox)[0] == pid
    machine.mitos("service", "uninstall", "--end")


@pytest.mark.real
@pytest.mark.timeout(300)
def test_a_server_that_hangs_is_started_again(machine: Machine) -> None:
    """The loop stands still as long as the process is stopped: no sign of life comes from it."""
    install(machine)
    drop_in = "/run/systemd/system/mitos.service.d"
    machine.run("mkdir", "-p", drop_in)
    machine.run("bash", "-c", f"printf '[Service]\\nWatchdogSec=2\\n' >{drop_in}/short.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "mitos")
    sandbox = counter(machine)
    pid, _ = count(machine, sandbox)
    server = status(machine)["pid"]

    machine.run("kill", "-STOP", str(server))

    assert count(machine, sandbox)[0] == pid
    assert status(machine)["pid"] != server
    assert "Watchdog timeout" in machine.journal("mitos")
