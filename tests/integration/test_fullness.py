"""A sandbox that is almost full can be copied, or says why not, and is none the worse for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import mitos
from mitos.errors import AgentRunError
from tests.integration.conftest import Server
from tests.integration.meter import Meter

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

MIB = 1 << 20
LIMIT = 512 * MIB
"""Of a sandbox that asks for nothing else."""

FILL_DEADLINE_S = 60.0

HOLD = """
import hashlib, os
blocks, looked_at = [], []
def fill(mib):
    blocks.extend(os.urandom(1 << 20) for _ in range(mib))
def state():
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    for name in looked_at:
        with open("/workspace/full/" + name, "rb") as file:
            while part := file.read(1 << 16):
                digest.update(part)
    return digest.hexdigest()
os.makedirs("/workspace/full", exist_ok=True)
"""

NOTHING = ""
ONE_FILE = """
with open("/workspace/full/large", "wb") as file:
    for _ in range(160):
        file.write(os.urandom(1 << 20))
looked_at.append("large")
"""
MANY_FILES = """
for number in range(12_000):
    with open("/workspace/full/%d" % number, "w") as file:
        file.write(str(number))
looked_at.extend(map(str, range(0, 12_000, 200)))
"""
"""Not all are looked at: opening that many takes a kernel more room than a full sandbox has."""
CONNECTIONS = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
def serve():
    for _ in range(16_000):
        listener.accept()[0].close()
threading.Thread(target=serve, daemon=True).start()
for _ in range(16_000):
    with socket.create_connection(listener.getsockname()) as connection:
        connection.recv(1)
"""
PROCESSES = """
import subprocess
sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(60)]
"""

OPEN_AGAIN_AND_AGAIN = """
for _ in range({times}):
    open("/workspace/full/one", "w").close()
"""

WAYS = {
    "heap": NOTHING,
    "a file": ONE_FILE,
    "many small files": MANY_FILES,
    "closed connections": CONNECTIONS,
    "processes": PROCESSES,
}


class Full:
    """A sandbox that is filled to a share of its memory.

    What is there by other means than the heap takes less than that; the heap takes the rest, up to
    a mebibyte. Its kernel is what tells its state: there is no room to start another program.
    """

    def __init__(self, server: Server, sandbox: mitos.DirectSandbox) -> None:
        self._meter = Meter(server.home)
        self.sandbox = sandbox
        self.run(HOLD)
        self._machine = self._find()

    def fill(self, way: str, share: float) -> None:
        """Fills it, and waits for its kernel's own garbage to be gone."""
        if way:
            self.run(way)
        deadline = time.monotonic() + FILL_DEADLINE_S
        settled = 0
        while settled < 3 and time.monotonic() < deadline:
            left = int(LIMIT * share) - self._meter.read()[self._machine]
            if left < 2 * MIB:
                settled += 1
                time.sleep(1)
                continue
            self.run(f"fill({max(1, left // MIB * 3 // 4)})")
        assert settled, "the sandbox could not be filled in time"

    def state(self) -> str:
        """A hash of all it holds."""
        return state_of(self.sandbox)

    def run(self, code: str) -> None:
        assert not self.sandbox.run_code(code).error

    def _find(self) -> str:
        """Its machine: the one that grows when it is told to."""
        seen = self._meter.read()
        self.run("grown = os.urandom(40 << 20)")
        now = self._meter.read()
        (found,) = [name for name in now if now[name] - seen.get(name, 0) > 30 * MIB]
        self.run("del grown")
        return found


def state_of(sandbox: mitos.DirectSandbox) -> str:
    done = sandbox.run_code("state()")
    assert done.text, done
    return done.text


def fork(full: Full, state: str) -> None:
    (child,) = full.sandbox.fork(1)
    with child:
        assert state_of(child) == state


def checkpoint(full: Full, _: str) -> None:
    full.sandbox.delete_checkpoint(full.sandbox.checkpoint())


def hibernate(full: Full, _: str) -> None:
    full.sandbox.hibernate()


VERBS: tuple[Callable[[Full, str], None], ...] = (fork, checkpoint, hibernate)
"""The last one comes last: when it wakes, a sandbox has another machine."""


def refusal_of(verb: Callable[[Full, str], None], full: Full, state: str) -> AgentRunError | None:
    """What the sandbox's server says against it; None when it was done."""
    try:
        verb(full, state)
    except AgentRunError as exc:
        return exc
    return None


def copy_in_every_way(server: Server, way: str, share: float) -> None:
    """Each verb is done or refused; the sandbox lives on with all it held."""
    with server.create() as sandbox:
        full = Full(server, sandbox)
        full.fill(WAYS[way], share)
        state = full.state()
        for verb in VERBS:
            refusal = refusal_of(verb, full, state)

            assert refusal is None or (refusal.code == "quota_exceeded" and refusal.remediation)
            assert full.state() == state, f"after {verb.__name__}"


def test_a_full_sandbox_does_not_end_of_what_its_kernel_leaves_behind(server: Server) -> None:
    """Each opening leaves garbage; the host counts it until the kernel collects."""
    with server.create() as sandbox:
        full = Full(server, sandbox)
        full.run(OPEN_AGAIN_AND_AGAIN.format(times=1))
        full.fill(NOTHING, 0.99)
        state = full.state()

        full.run(OPEN_AGAIN_AND_AGAIN.format(times=20_000))

        assert full.state() == state


@pytest.mark.parametrize(
    "share",
    [0.99, *(pytest.param(share, marks=pytest.mark.matrix) for share in (0.5, 0.8, 0.95))],
)
def test_a_full_sandbox_is_not_harmed_by_a_copy(server: Server, share: float) -> None:
    copy_in_every_way(server, "heap", share)


@pytest.mark.matrix
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "heap"])
def test_nor_by_one_when_it_is_full_of_something_else(
    server: Server, way: str, share: float
) -> None:
    copy_in_every_way(server, way, share)
