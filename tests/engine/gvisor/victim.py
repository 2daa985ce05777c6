"""A process that adopts, makes, forks, pauses and ends machines until somebody kills it.

It is told what to adopt on its standard input, and says on its standard output what it is about to
do and what it has done, a line of JSON each, so that whoever kills it knows what must be there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mitos.engine.base import Blank, Machine, MachineEnd, MachineSpec, Resources
from mitos.engine.gvisor import GvisorEngine, GvisorSettings
from mitos.host.rootfs import RootFilesystem, RootKind
from tests.contract.guest import Client, connected, token_of
from tests.machine import runsc

__all__ = ["Known", "Plan", "spec_of"]

_MOST, _LEAST = 5, 2
_KEPT_BLANKS = 1
_BIG_BYTES = 4 << 20


@dataclass(frozen=True)
class Plan:
    """What the process is told.

    Attributes:
        state: the engine's folder.
        snapshots: folder for snapshots.
        root: kind and path of the root filesystem.
        guest: folder of the guest's files.
        seed: of all that is random.
        known: machines that must be there.
    """

    state: str
    snapshots: str
    root: tuple[str, str]
    guest: str
    seed: int
    known: list[Known] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """A machine.

    Attributes:
        id: the engine's name of it.
        token: what its agent was told.
        number: what it has in `/workspace/number`.
        pause: "yes", "no", or "changing".
    """

    id: str
    token: str
    number: int
    pause: str = "no"


def spec_of(plan: Plan) -> MachineSpec:
    """What all machines are made of."""
    kind, path = plan.root
    root = RootFilesystem(RootKind(kind), Path(path))
    return MachineSpec(root, Path(plan.guest), Resources(memory_mib=128, process_limit=64))


@dataclass
class _Held:
    """A machine at work; `turn` is held by whoever gives it an order."""

    client: Client
    known: Known
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Victim:
    def __init__(self, plan: Plan, exits: AsyncExitStack) -> None:
        self._plan = plan
        self._exits = exits
        self._random = random.Random(plan.seed)
        self._engine = GvisorEngine(GvisorSettings(runsc=runsc(), state=Path(plan.state)))
        self._spec = spec_of(plan)
        self._machines: dict[str, _Held] = {}
        self._blanks: deque[Blank] = deque()
        self._count = 0

    async def run(self) -> None:
        """Works until it is killed."""
        say("start")
        await self._engine.start()
        say("adopt blanks")
        self._blanks.extend(await self._engine.adopt_blanks(self._spec))
        await asyncio.gather(*map(self._adopt, self._plan.known))
        say("sweep")
        await self._engine.sweep()
        await asyncio.gather(*(self._work() for _ in range(3)))

    async def _adopt(self, known: Known) -> None:
        say("adopt", known)
        machine = await self._engine.adopt(known.id, self._spec)
        assert not isinstance(machine, MachineEnd), (known, machine)
        now = Known(machine.id, known.token, known.number, "yes" if machine.is_paused else "no")
        if now != known:
            say("replaced", known)
            say("there", now)
        await self._keep(now, machine, token=known.token)

    async def _keep(
        self, known: Known, machine: Machine, *, token: str | None, restored: bool = False
    ) -> _Held:
        if machine.is_paused:
            await self._set_pause(known, machine, paused=False)
        block = connected(machine, restored=restored, token=token)
        held = _Held(await self._exits.enter_async_context(block), known)
        self._machines[known.id] = held
        return held

    async def _work(self) -> None:
        orders = [self._fork, self._fork, self._pause, self._pause, self._read, self._end]
        while True:
            if len(self._machines) < _LEAST:
                await self._boot()
            else:
                await self._order(self._random.choice(orders))

    async def _order(self, order: Callable[[_Held], Awaitable[None]]) -> None:
        held = self._random.choice(list(self._machines.values()))
        async with held.turn:
            if held.known.id in self._machines:
                await order(held)

    async def _boot(self) -> None:
        say("boot")
        await self._keep_new(await self._engine.boot(self._spec), restored=False)

    async def _keep_new(self, machine: Machine, *, restored: bool) -> None:
        known = Known(machine.id, token_of(machine.id), self._random.randrange(1 << 30))
        held = await self._keep(known, machine, token=None, restored=restored)
        async with held.turn:
            await held.client.write("/workspace/number", str(known.number).encode())
            await held.client.write("/workspace/big", os.urandom(_BIG_BYTES))
            say("there", known)

    async def _fork(self, held: _Held) -> None:
        if len(self._machines) >= _MOST:
            return
        self._count += 1
        folder = Path(self._plan.snapshots) / f"{os.getpid()}-{self._count}"
        say("checkpoint", held.known)
        snapshot = await held.client.checkpoint(self._engine, folder)
        while len(self._blanks) <= _KEPT_BLANKS:
            say("prepare")
            self._blanks.append(await self._engine.prepare(self._spec))
        blank = self._blanks.popleft()
        say("restore")
        machine = await self._engine.restore(blank, snapshot)
        shutil.rmtree(folder)
        await self._keep_new(machine, restored=True)

    async def _pause(self, held: _Held) -> None:
        await self._set_pause(held.known, held.client.machine, paused=True)
        await asyncio.sleep(self._random.uniform(0, 0.1))
        await self._set_pause(held.known, held.client.machine, paused=False)

    async def _set_pause(self, known: Known, machine: Machine, *, paused: bool) -> None:
        say("pause", Known(known.id, known.token, known.number, "changing"))
        await (self._engine.pause if paused else self._engine.resume)(machine)
        state = "yes" if paused else "no"
        say("pause", Known(known.id, known.token, known.number, state))

    async def _read(self, held: _Held) -> None:
        say("read")
        assert len(await held.client.read("/workspace/big")) == _BIG_BYTES

    async def _end(self, held: _Held) -> None:
        if len(self._machines) <= _LEAST:
            return
        say("end", held.known)
        del self._machines[held.known.id]
        await held.client.link.close()
        await self._engine.destroy(held.client.machine)


def say(event: str, known: Known | None = None) -> None:
    """Tells whoever listens, at once."""
    line = {"event": event, "known": asdict(known) if known is not None else None}
    os.write(1, json.dumps(line).encode() + b"\n")


@asynccontextmanager
async def _victim() -> AsyncIterator[_Victim]:
    told = json.loads(sys.stdin.readline())
    known = [Known(**each) for each in told.pop("known")]
    async with AsyncExitStack() as exits:
        yield _Victim(Plan(**told, known=known), exits)


async def _main() -> None:
    async with _victim() as victim:
        await victim.run()


if __name__ == "__main__":
    asyncio.run(_main())
