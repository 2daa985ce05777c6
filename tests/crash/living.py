"""A sandbox that tells whether anything of it was lost: it counts, and its commands say lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

import mitos
from tests.crash.world import World, until
from tests.integration.test_command import EXEC_PATH

__all__ = ["Job", "Living", "Reading"]

COUNTER = """
import os, time
token = os.urandom(8).hex()
memory = os.open("/tmp/memory", os.O_RDWR | os.O_CREAT)
count = 0
with open("/workspace/count", "a", buffering=1) as file:
    while True:
        count += 1
        os.pwrite(memory, b"%s %012d" % (token.encode(), count), 0)
        file.write(f"{count}\\n")
        time.sleep(0.05)
"""
"""Counts in memory and in a file. Its token is another one if it was ever started again."""

LINES = """
import os, sys, time
count = 0
while not os.path.exists(sys.argv[1]):
    print(count, flush=True)
    count += 1
    time.sleep(0.01)
print("end")
"""
"""Says a numbered line every 10 ms, until it finds a file."""

READ = "cat /tmp/memory; echo; awk 'END { print $1, NR }' /workspace/count"

JOB = "job"
"""The id of a command that is kept and that nobody reads."""

LINES_BEFORE = 10
WAIT_S = 60.0


@dataclass(frozen=True)
class Reading:
    """Where a sandbox's counters stand.

    Attributes:
        token: of the process that counts.
        memory: its count.
        file: the last count in the file.
        lines: how many counts are in the file.
    """

    token: str
    memory: int
    file: int
    lines: int

    def check_later(self, later: Reading, *, is_more: bool = True) -> None:
        """Holds if the same process has gone on."""
        assert self.token == later.token, "the process in memory is another one"
        assert later.file == later.lines, "a count in the file is missing or twice there"
        assert later.memory >= self.memory + is_more
        assert later.file >= self.file


class Living:
    """A sandbox that counts.

    Args:
        world: its server's.
        sandbox: running, of the template `python`.
    """

    def __init__(self, world: World, sandbox: mitos.DirectSandbox) -> None:
        self._world = world
        self.sandbox = sandbox

    @classmethod
    def create(cls, world: World, name: str) -> Living:
        """A new one, whose counters have begun."""
        made = cls(world, world.client.fork("python", id=name))
        made.sandbox.files.write("/tmp/counter.py", COUNTER)
        made.sandbox.files.write("/tmp/lines.py", LINES)
        made.keep("counter", "exec python3 /tmp/counter.py")
        until(made.counts, "the counters run")
        return made

    @property
    def id(self) -> str:
        """The sandbox's."""
        return self.sandbox.id

    def fork(self, name: str) -> Living:
        """A copy of it, which counts on from here."""
        (child,) = self.sandbox.fork(1, id=name)
        return Living(self._world, child)

    def counts(self) -> bool:
        """True once its counters have begun."""
        return self.sandbox.exec("test -s /tmp/memory && test -s /workspace/count").exit_code == 0

    def read(self) -> Reading:
        """Asks it."""
        said = self.sandbox.exec(READ)
        token, memory, file, lines = said.stdout.split()
        return Reading(token, int(memory), int(file), int(lines))

    def check_goes_on(self, earlier: Reading) -> None:
        """Holds if the counters have gone on and still do."""
        later = self.read()
        earlier.check_later(later, is_more=False)
        until(lambda: self.read().memory > max(later.memory, earlier.memory), "it counts on")
        assert later.token == self.read().token

    def record(self) -> dict[str, Any]:
        """All that the server says about it."""
        path = f"/v1/sandboxes/{self.id}"
        tree, kept = self._world.get(f"{path}/tree"), self._world.get(f"{path}/checkpoints")
        relatives = [node for node in tree["nodes"] if node["id"] == self.id]
        return {**self._world.get(path), "relatives": relatives, "checkpoints": kept}

    def keep(self, command_id: str, command: str) -> None:
        """Starts a command that nobody reads."""
        message = json.dumps({"command": command, "timeoutSeconds": 3600}).encode()
        headers = {
            "content-type": "application/connect+json",
            "x-sandbox-id": self.id,
            "x-command-id": command_id,
            "x-command-keep": "true",
        }
        body = b"\0" + len(message).to_bytes(4, "big") + message
        url = self._world.url + EXEC_PATH
        with httpx.stream("POST", url, content=body, headers=headers) as answer:
            next(answer.iter_raw())

    def keep_job(self) -> None:
        """Starts the command `job`, which says lines."""
        self.keep(JOB, f"echo begins; exec python3 /tmp/lines.py /tmp/stop-{JOB}")

    def check_job(self) -> None:
        """Holds if that command lives and nothing of what it said is lost."""
        said = bytearray()
        again = self.sandbox.command(JOB, on_stdout=said.extend)
        seen = len(said)
        until(lambda: len(said) > seen, f"{JOB} of {self.id} goes on")
        self.sandbox.files.write(f"/tmp/stop-{JOB}", "")
        assert again.wait(WAIT_S).exit_code == 0
        assert again.lost_bytes == 0
        check_lines(bytes(said).removeprefix(b"begins\n"))


class Job:
    """A command of a sandbox that says lines, and its reader, which began before the kill.

    Args:
        living: whose command it is.
        label: names it, once in a sandbox.

    Attributes:
        living: whose command it is.
    """

    def __init__(self, living: Living, label: str) -> None:
        self.living = living
        self._stop = f"/tmp/stop-{label}"
        self._said = bytearray()
        self._handle = living.sandbox.exec_background(
            f"exec python3 /tmp/lines.py {self._stop}", on_stdout=self._said.extend
        )
        until(lambda: self._said.count(b"\n") > LINES_BEFORE, f"{label} of {living.id} begins")

    def check(self) -> None:
        """Holds if its reader gets every line, from before the kill to the end."""
        seen = len(self._said)
        until(lambda: len(self._said) > seen or self._failed, "its reader goes on")
        if not self._failed:
            self.living.sandbox.files.write(self._stop, "")
        assert self._handle.wait(WAIT_S).exit_code == 0
        assert self._handle.lost_bytes == 0
        check_lines(bytes(self._said))

    @property
    def _failed(self) -> bool:
        return not self._handle.running()


def check_lines(said: bytes) -> None:
    """Holds if it is every line once, in order, to the end."""
    lines = said.decode().splitlines()
    assert lines[-1] == "end"
    assert lines[:-1] == [str(number) for number in range(len(lines) - 1)]
