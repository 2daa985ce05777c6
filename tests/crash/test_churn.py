"""Half an hour at full rate with a restart every minute: what it took is given back.

`MITOS_CHURN_MINUTES` says how long, and `MITOS_CHURN_RESULT` names a file for the table
(`bench/results/churn.md`).
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

import mitos
from mitos.errors import TransportFailedError
from tests.crash.census import folders, groups, halves, processes
from tests.crash.conftest import make_home
from tests.crash.living import Job, Living
from tests.crash.point import IDLE
from tests.crash.world import World, until
from tests.integration.leftovers import Leftovers

MINUTES = float(os.environ.get("MITOS_CHURN_MINUTES", "30"))
RESULT = os.environ.get("MITOS_CHURN_RESULT", "")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(MINUTES * 60 + 600)]

RESTART_EVERY_S = 60.0
CLIENTS = 4
RESIDENTS = ("one", "two", "three")

MORE_MEMORY_BYTES = 30 << 20
MORE_DESCRIPTORS = 16
"""What a server may have more than the first one had: caches, and what the pool keeps more."""

END_WITHIN_S = 60.0

PROGRAM = "python"


@dataclass(frozen=True)
class Reading:
    """What a server and its home have at rest."""

    server_memory_mib: float
    descriptors: int
    machines: int
    control_groups: int
    kernels: int
    hibernated: int
    checkpoints: int
    half_built: int


def read(world: World) -> Reading:
    """Takes a reading."""
    status = Path(f"/proc/{world.pid}/status").read_text()
    resident_kib = next(line.split()[1] for line in status.splitlines() if "VmRSS" in line)
    half_built = [name for name in world.entries("snapshots") if name.startswith("building")]
    return Reading(
        server_memory_mib=round(int(resident_kib) / 1024, 1),
        descriptors=len(list(Path(f"/proc/{world.pid}/fd").iterdir())),
        machines=len(folders(world.home)),
        control_groups=len(groups(world.home)),
        kernels=len(processes(world.home)),
        hibernated=len(world.entries("hibernated")),
        checkpoints=len(world.entries("checkpoints")),
        half_built=len(half_built),
    )


class Client:
    """Works at full rate, on sandboxes of its own; a server that is away is tried again.

    Args:
        world: whose server it asks.
        number: which client.
        stop: set when it is enough.

    Attributes:
        done: what was done, by name; and the codes of what was refused meanwhile.
        wrong: what must not be.
    """

    def __init__(self, world: World, number: int, stop: threading.Event) -> None:
        self._world = world
        self._number = number
        self._stop = stop
        self._chance = random.Random(number)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until it is enough."""
        works = (self.use, self.fork, self.checkpoint, self.hibernate)
        while not self._stop.is_set():
            work = self._chance.choice(works)
            name = f"c{self._number}-{sum(self.done.values())}"
            try:
                self._with_sandbox(name, work)
                self.done[work.__name__] += 1
            except mitos.AgentRunError as exc:
                self.done[f"refused: {exc.code}"] += 1
                time.sleep(0.05)
            except AssertionError as exc:
                self.wrong.append(f"{work.__name__} of {name}: {exc}")

    def _with_sandbox(self, name: str, work: Callable[[mitos.DirectSandbox], None]) -> None:
        try:
            work(self._world.client.fork(PROGRAM, id=name))
        finally:
            self._end(name)

    def _end(self, name: str) -> None:
        """Ends a sandbox and its children, also when no answer told that they were made."""
        handle = mitos.DirectSandbox(name, PROGRAM, self._world.url, self._world.url, 0.0)
        deadline = time.monotonic() + END_WITHIN_S
        while time.monotonic() < deadline:
            try:
                handle.terminate(subtree=True)
            except TransportFailedError:
                time.sleep(0.1)
            else:
                return
        self.wrong.append(f"{name} could not be ended")

    def use(self, sandbox: mitos.DirectSandbox) -> None:
        content = str(self._chance.random()) * 10_000
        sandbox.files.write("/workspace/file", content)
        assert sandbox.exec("wc -c < /workspace/file").stdout.strip() == str(len(content))

    def fork(self, sandbox: mitos.DirectSandbox) -> None:
        sandbox.files.write("/workspace/file", sandbox.id)
        for child in sandbox.fork(2):
            assert child.files.read("/workspace/file") == sandbox.id

    def checkpoint(self, sandbox: mitos.DirectSandbox) -> None:
        sandbox.files.write("/workspace/file", "before")
        kept = sandbox.checkpoint()
        sandbox.files.write("/workspace/file", "after")
        sandbox.restore(kept)
        assert sandbox.files.read("/workspace/file") == "before"

    def hibernate(self, sandbox: mitos.DirectSandbox) -> None:
        sandbox.files.write("/workspace/file", sandbox.id)
        sandbox.hibernate()
        assert sandbox.files.read("/workspace/file") == sandbox.id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server that has been through one restart, as all of the others will have been."""
    made = World(make_home(tmp_path), tmp_path, "--on-stop", "leave")
    leftovers = Leftovers(made.home)
    made.start(IDLE, "--prepare", PROGRAM)
    yield made
    made.end_all()
    made.kill(signal.SIGKILL)
    made.start(IDLE, "--on-stop", "end")
    made.stop()
    assert leftovers.found() == []


def test_what_churn_took_is_given_back(world: World) -> None:
    residents = [Living.create(world, name) for name in RESIDENTS]
    jobs = [Job(each, "churn") for each in residents]
    readings = [each.read() for each in residents]
    warm_up(world)
    restart(world, 0)
    before = at_rest(world)
    stop = threading.Event()
    clients = [Client(world, number, stop) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()

    restarts = 0
    ends = time.monotonic() + MINUTES * 60
    while (left_s := ends - time.monotonic()) > 0:
        time.sleep(min(RESTART_EVERY_S, left_s))
        restarts += 1
        restart(world, restarts)
    stop.set()
    for thread in threads:
        thread.join(120)
    for sandbox_id in world.listing().keys() - set(RESIDENTS):
        world.delete(f"/v1/sandboxes/{sandbox_id}")
    after = at_rest(world)

    done = sum((client.done for client in clients), Counter())
    print(f"{restarts} restarts: {dict(done)}")
    print(f"before {before}\nafter  {after}")
    if RESULT:
        Path(RESULT).write_text(table(before, after, done, restarts))
    assert [each for client in clients for each in client.wrong] == []
    assert all(not thread.is_alive() for thread in threads)
    for living, reading in zip(residents, readings, strict=True):
        living.check_goes_on(reading)
    for job in jobs:
        job.check()
    check_given_back(before, after)


def warm_up(world: World) -> None:
    """Has the pool keep as much as the clients will have it keep."""
    stop = threading.Event()
    client = Client(world, 1000, stop)
    sandbox = world.client.fork(PROGRAM, id="warm-up")
    for work in (client.use, client.fork, client.checkpoint, client.hibernate):
        work(sandbox)
    sandbox.terminate(subtree=True)


def restart(world: World, number: int) -> None:
    """Every other one is a crash, the others are asked for."""
    world.kill(signal.SIGTERM if number % 2 else signal.SIGKILL)
    world.start()


def at_rest(world: World) -> Reading:
    """A reading, once nothing changes any more."""
    until(lambda: halves(world.home) == {}, "no half machine is left", 60)
    last, since = read(world), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        now = read(world)
        if (now.machines, now.descriptors) != (last.machines, last.descriptors):
            last, since = now, time.monotonic()
        return time.monotonic() - since > 3

    until(is_still, "the server is at rest", 60)
    return read(world)


def check_given_back(before: Reading, after: Reading) -> None:
    """Holds if the last server has no more than the first."""
    grown_mib = after.server_memory_mib - before.server_memory_mib
    assert grown_mib * (1 << 20) < MORE_MEMORY_BYTES
    assert after.descriptors - before.descriptors <= MORE_DESCRIPTORS
    left_out = ("server_memory_mib", "descriptors")
    counted = [{k: v for k, v in asdict(r).items() if k not in left_out} for r in (before, after)]
    assert counted[0] == counted[1]


def table(before: Reading, after: Reading, done: Counter[str], restarts: int) -> str:
    """The result, as `bench/results` has them."""
    machine = f"{os.cpu_count()} CPUs, Linux {platform.release()}, {platform.machine()}"
    lines = [
        "# Churn",
        "",
        f"`tests/crash/test_churn.py`, {datetime.date.today()}, {MINUTES:g} minutes. {machine}.",
        "",
        f"{CLIENTS} clients at full rate, {len(RESIDENTS)} sandboxes that lived through it all.",
        f"{restarts} restarts: every other one by `kill -9`, the others with `--on-stop leave`.",
        "",
        "| at rest | before | after |",
        "| --- | ---: | ---: |",
    ]
    later = asdict(after)
    for name, value in asdict(before).items():
        lines.append(f"| {name.replace('_', ' ')} | {value:,} | {later[name]:,} |")
    lines += ["", "| done | times |", "| --- | ---: |"]
    lines += [f"| {name} | {times:,} |" for name, times in sorted(done.items())]
    return "\n".join(lines) + "\n"
