"""Engines that are killed again and again, at any moment, and what the next one finds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from mitos.engine.base import Blank, MachineEnd
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.host import cgroup, process
from mitos.host.rootfs import RootKind
from mitos.images import guest
from tests.contract.guest import connected
from tests.engine.gvisor.victim import Known, Plan, spec_of
from tests.engine.roots import bare_root
from tests.machine import runsc, why_no_real_sandboxes

pytestmark = [pytest.mark.real]

ROUNDS_S = 60.0
"""A bound against hanging, for one round; it takes some seconds."""

MOST_EVENTS = 60
MOST_DELAY_S = 0.06
"""When a process is killed: after as many events, and as much later, at most."""


@dataclass
class World:
    """What must be there, whoever was killed."""

    plan: Plan
    random: random.Random
    known: dict[str, Known] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def engine(self) -> GvisorEngine:
        """An engine of the state folder, not started."""
        return GvisorEngine(GvisorSettings(runsc=runsc(), state=Path(self.plan.state)))

    def hear(self, line: bytes) -> None:
        """Takes note of what a process says."""
        told = json.loads(line)
        self.told.append(f"{told['event']} {told['known'] or ''}")
        if told["known"] is None:
            return
        known = Known(**told["known"])
        if told["event"] in ("there", "pause"):
            self.known[known.id] = known
        elif told["event"] in ("end", "replaced"):
            del self.known[known.id]

    async def kill_one(self) -> None:
        """Starts a process, and kills it at some moment."""
        events = self.random.randint(1, MOST_EVENTS)
        delay_s = self.random.uniform(0, MOST_DELAY_S)
        plan = replace(
            self.plan, seed=self.random.randrange(1 << 30), known=list(self.known.values())
        )
        self.told = [f"seed {plan.seed}, killed {delay_s:.3f} s after event {events}"]
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.engine.gvisor.victim"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        for _ in range(events):
            line = await child.stdout.readline()
            assert line, f"it ended by itself: {self.told}"
            self.hear(line)
        await asyncio.sleep(delay_s)
        child.kill()
        for line in (await child.stdout.read()).splitlines():
            self.hear(line)
        await child.wait()

    async def examine(self) -> None:
        """Adopts all that must be there, looks at it, and lets go of it again."""
        engine = self.engine
        await engine.start()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.close)
            blanks = await engine.adopt_blanks(spec_of(self.plan))
            known = list(self.known.values())
            await asyncio.gather(*(self._examine_one(engine, each) for each in known))
            await engine.sweep()
            await self._examine_blanks(engine, blanks)
        self._expect_only_known(engine)
        shutil.rmtree(self.plan.snapshots, ignore_errors=True)

    async def _examine_one(self, engine: GvisorEngine, known: Known) -> None:
        machine = await engine.adopt(known.id, spec_of(self.plan))
        assert not isinstance(machine, MachineEnd), f"{machine} of {known}: {self.told}"
        if known.pause != "changing":
            assert machine.id == known.id, f"{known} is a copy: {self.told}"
            assert machine.is_paused == (known.pause == "yes"), f"{known}: {self.told}"
        await engine.resume(machine)
        async with connected(machine, token=known.token) as client:
            assert await client.read("/workspace/number") == str(known.number).encode()
        pause = "no"
        if self.random.random() < 0.3:
            await engine.pause(machine)
            pause = "yes"
        del self.known[known.id]
        self.known[machine.id] = Known(machine.id, known.token, known.number, pause)
        await engine.leave(machine)

    async def _examine_blanks(self, engine: GvisorEngine, blanks: list[Blank]) -> None:
        if not blanks:
            return
        async with connected(await engine.boot(spec_of(self.plan))) as parent:
            await parent.write("/workspace/a", b"1")
            snapshot = await parent.checkpoint(engine, Path(self.plan.snapshots) / "blanks")
        for blank in blanks:
            async with connected(await engine.restore(blank, snapshot), restored=True) as child:
                assert await child.read("/workspace/a") == b"1"
                assert b"lo:" in await child.read("/proc/net/dev"), self.told

    def _expect_only_known(self, engine: GvisorEngine) -> None:
        state = Path(self.plan.state)
        hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
        assert hierarchy is not None
        bundles = {f"--bundle={state}/machines/{name}".encode() for name in self.known}
        lines = [process.command_line(pid) for pid in process.find(f"--root={state}/runsc")]
        words = {word for line in lines for word in line.split(b"\0")}
        assert bundles <= words, self.told
        for line in lines:
            assert bundles & set(line.split(b"\0")), f"{line!r}: {self.told}"
        assert {each.name for each in (state / "machines").iterdir()} == self.known.keys()
        assert hierarchy.children(engine.control_group) == self.known.keys(), self.told
        files = {each.name for each in (state / "runsc").iterdir()}
        strays = {f for f in files if not any(name in f for name in self.known)}
        assert strays == set(), self.told
        assert list((state / "copies").glob("*")) == []


@pytest.fixture(params=list(RootKind), ids=lambda kind: kind.value)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A state folder, and what to make machines of."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    files = guest.materialize(tmp_path / "guest")
    root = await bare_root(request.param, tmp_path, files)
    seed = int(os.environ.get("MITOS_TEST_SEED") or random.randrange(1 << 30))
    plan = Plan(
        state=str(tmp_path / "state"),
        snapshots=str(tmp_path / "snapshots"),
        root=(root.kind.value, str(root.path)),
        guest=str(files),
        seed=seed,
    )
    made = World(plan, random.Random(seed))
    try:
        yield made
    finally:
        engine = made.engine
        await engine.start()
        await engine.sweep()
        await engine.close()


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(4, marks=pytest.mark.timeout(4 * ROUNDS_S)),
        pytest.param(100, marks=[pytest.mark.crash, pytest.mark.timeout(100 * ROUNDS_S)]),
    ],
)
async def test_whatever_moment_an_engine_is_killed_at_the_next_one_goes_on(
    world: World, rounds: int
) -> None:
    """Every machine answers with what it had, and nothing else is left on the host."""
    for _ in range(rounds):
        await world.kill_one()
        await world.examine()
