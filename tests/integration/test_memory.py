"""Memory that a burst of work took in the sandbox's kernel is given back once it is over."""

from __future__ import annotations

import time

import pytest

import mitos
from tests.integration.conftest import Server
from tests.integration.meter import Meter

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

ALLOWED_BYTES = 20_000_000
AFTER_S = 120
"""Longer than a closed connection is remembered, which is a minute."""

CONNECTIONS = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
def serve():
    while True:
        listener.accept()[0].close()
threading.Thread(target=serve, daemon=True).start()
for _ in range({count}):
    with socket.create_connection(listener.getsockname()) as connection:
        connection.recv(1)
"""
FILES = """
import os
os.mkdir("/workspace/many")
for number in range({count}):
    open("/workspace/many/%d" % number, "w").close()
"""
REMOVED = """
import shutil
shutil.rmtree("/workspace/many")
"""

WORK = {
    "16,000 connections": CONNECTIONS.format(count=16_000),
    "12,000 connections": CONNECTIONS.format(count=12_000),
    "40,000 files, removed after two forks": FILES.format(count=40_000),
    "60,000 files, removed": FILES.format(count=60_000) + REMOVED,
}


def test_a_burst_is_forgotten_and_forks_work_afterwards(server: Server) -> None:
    """All at the same time, because most of it is waiting."""
    meter = Meter(server.home)
    sandboxes = {name: server.create() for name in WORK}
    for sandbox in sandboxes.values():
        sandbox.exec("true")
    time.sleep(10)  # what making them took is given back
    held: dict[str, tuple[str, int]] = {}
    for name, program in WORK.items():
        before = meter.read()
        sandboxes[name].files.write("/tmp/work.py", program)
        assert sandboxes[name].exec("python3 /tmp/work.py", timeout=300).exit_code == 0
        after = meter.read()
        (machine,) = [m for m in before if after.get(m, 0) - before[m] > 30_000_000]
        held[name] = (machine, before[machine])
    kept = sandboxes["40,000 files, removed after two forks"]
    fork_works(kept, "find /workspace/many -type f | wc -l", "40000\n")
    assert kept.exec("rm -r /workspace/many", timeout=60).exit_code == 0

    time.sleep(AFTER_S)

    now = meter.read()
    more = {name: now[machine] - before for name, (machine, before) in held.items()}
    assert {name: size for name, size in more.items() if size > ALLOWED_BYTES} == {}
    for sandbox in sandboxes.values():
        fork_works(sandbox, "echo lives", "lives\n")
        sandbox.terminate()


def fork_works(sandbox: mitos.DirectSandbox, command: str, expected: str) -> None:
    """Twice two children, and the source goes on."""
    for _ in range(2):
        for child in sandbox.fork(2):
            with child:
                assert child.exec(command).stdout == expected
    assert sandbox.exec(command).stdout == expected
