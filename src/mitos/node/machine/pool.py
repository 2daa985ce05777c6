"""What is kept ready so that create and fork are fast: blanks and warm machines.

A *blank* is a prepared machine waiting for a restore, the same for every snapshot of an equal spec.
A *warm* machine is a template's snapshot already restored and answering. One background task
refills both, one machine at a time, and waits while a create or fork is running and shortly after:
who creates a sandbox often forks it next, and both want the processors to themselves. Only a
snapshot whose last warm machine was taken is served without that pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from mitos.agent.identity import Identity, make_identity
from mitos.agent.link import Link
from mitos.engine.base import (
    Blank,
    Engine,
    EngineError,
    Machine,
    MachineEnd,
    MachineSpec,
    Snapshot,
)
from mitos.node.machine.admission import Admission
from mitos.node.machine.gather import make_all
from mitos.node.machine.room import STARTS, Room
from mitos.node.machine.running import RunningMachine, destroy, restore
from mitos.node.machine.token import LinkTokens
from mitos.node.settings import NodeSettings
from mitos.node.state.warm import WarmTable
from mitos.wire.errors import ApiError

__all__ = ["RECENT_TAKES", "Pool", "stock_for"]

_log = logging.getLogger(__name__)

QUIET_S = 0.25
"""How long nobody must have wanted a machine before what can wait is refilled."""

RECENT_TAKES = 16
"""The stock of blanks follows the largest of so many forks. One that a fork needs and does not find
costs about 30 ms of CPU.
"""

RETRY_S = 5.0
"""Pause after a failed refill: a full disk does not get better in a tight loop."""

_PROCESSORS = os.cpu_count() or 1

WARM_ID = "warm"
"""Provisional id of a warm machine; it gets a sandbox's when somebody takes it."""


def stock_for(takes: Collection[int], settings: NodeSettings) -> int:
    """How many blanks to keep after the last forks took so many each."""
    return min(max(*takes, settings.blanks_per_spec), settings.max_blanks_per_spec)


@dataclass(frozen=True, slots=True)
class _Warm:
    """A warm machine, paused until it is taken: an idle one costs CPU too."""

    running: RunningMachine
    paused: contextlib.ExitStack


class Pool:
    """Blanks and warm machines of one engine. Owns every machine in it.

    Args:
        engine: makes the machines.
        tokens: of the machines' links.
        table: where the next server finds the warm machines.
        settings: how many are kept.
    """

    def __init__(
        self, engine: Engine, tokens: LinkTokens, table: WarmTable, settings: NodeSettings
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._table = table
        self._settings = settings
        self._blanks: dict[MachineSpec, deque[Blank]] = defaultdict(deque)
        self._wanted_blanks: dict[MachineSpec, int] = {}
        self._takes: dict[MachineSpec, deque[int]] = defaultdict(lambda: deque(maxlen=RECENT_TAKES))
        self._warm: dict[Snapshot, deque[_Warm]] = defaultdict(deque)
        self._users: Counter[Snapshot] = Counter()
        self._room = Room()
        self._admission = Admission(
            at_once=_PROCESSORS * settings.makers_per_processor,
            max_waiting=settings.max_waiting_makers,
            deadline_s=settings.admission_deadline_s,
        )
        self._foreground = 0
        self._quiet_from = 0.0
        self._wake = asyncio.Event()
        self._refiller: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts refilling."""
        self._refiller = asyncio.create_task(self._refill_forever(), name="pool-refill")

    async def close(self) -> None:
        """Stops refilling and destroys everything kept. Idempotent."""
        if self._refiller is not None:
            self._refiller.cancel()
            await asyncio.gather(self._refiller, return_exceptions=True)
        self._users.clear()
        for snapshot in list(self._warm):
            await self._drop_warm(snapshot)
        for blanks in self._blanks.values():
            while blanks:
                try:
                    await self._engine.destroy(blanks.popleft())
                except (EngineError, OSError) as exc:
                    _log.error("a blank could not be removed: %s", exc)

    def keep_warm(self, snapshot: Snapshot) -> None:
        """Keeps warm machines of the snapshot, and blanks of its spec, for one more user of it."""
        self._users[snapshot] += 1
        self._wanted_blanks.setdefault(snapshot.spec, self._settings.blanks_per_spec)
        self._wake.set()

    async def release_warm(self, snapshot: Snapshot) -> None:
        """Undoes one `keep_warm`; after the last one its warm machines are destroyed."""
        self._users[snapshot] -= 1
        if self._users[snapshot] <= 0:
            del self._users[snapshot]
            await self._drop_warm(snapshot)

    async def adopt(self, taken: Collection[str]) -> None:
        """Takes over what an earlier server kept ready and this one wants as well.

        Args:
            taken: machines that sandboxes have.

        Raises:
            ApiError: the state cannot be read.
        """
        wanted = {snapshot.directory: snapshot for snapshot in self._users}
        for machine_id, directory in self._table.all().items():
            snapshot = wanted.get(directory)
            if snapshot is not None and machine_id not in taken:
                try:
                    await self._adopt_warm(machine_id, snapshot)
                except EngineError as exc:
                    _log.warning("a warm machine cannot be taken over: %s", exc)
        for spec in self._wanted_blanks:
            self._blanks[spec].extend(await self._engine.adopt_blanks(spec))

    async def _adopt_warm(self, machine_id: str, snapshot: Snapshot) -> None:
        machine = await self._engine.adopt(machine_id, snapshot.spec)
        if isinstance(machine, MachineEnd):
            return
        if not machine.is_paused:  # somebody was taking it
            await self._engine.destroy(machine)
            return
        link = Link(machine.link, machine, token=self._tokens.of(machine_id))
        paused = _held(link)
        paused.callback(link.take_over)
        running = RunningMachine(machine, link, snapshot.size_bytes())
        self._warm[snapshot].append(_Warm(running, paused))

    @contextlib.asynccontextmanager
    async def foreground(self, count: int, copied_bytes: int) -> AsyncIterator[None]:
        """While this is open the refiller stands aside: somebody waits for so many machines.

        Args:
            count: of machines.
            copied_bytes: memory that each is a copy of.

        Raises:
            ApiError: `rate_limited`, its turn did not come; `quota_exceeded`, there is no room.
        """
        self._foreground += 1
        try:
            async with self._admission.turn():
                with self._room.taken(count, copied_bytes):
                    yield
        finally:
            self._foreground -= 1
            self._quiet_from = time.monotonic() + QUIET_S
            self._wake.set()

    async def take_warm(self, snapshot: Snapshot) -> RunningMachine | None:
        """A warm machine of the snapshot, or None when there is none. The caller owns it."""
        ready = self._warm.get(snapshot)
        while ready:
            warm = ready.popleft()
            self._wake.set()
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(destroy, self._engine, warm.running)
                if await self._woken(warm):
                    undo.pop_all()
                    return warm.running
        return None

    async def _woken(self, warm: _Warm) -> bool:
        """Lets it go on; False when it has ended meanwhile."""
        try:
            await self._engine.resume(warm.running.machine)
        except (EngineError, OSError) as exc:
            _log.warning("a warm machine could not be woken: %s", exc)
            return False
        warm.paused.close()
        return not warm.running.link.lost.is_set()

    async def _drop_warm(self, snapshot: Snapshot) -> None:
        for warm in self._warm.pop(snapshot, ()):
            await destroy(self._engine, warm.running)

    async def take_blanks(self, spec: MachineSpec, count: int) -> list[Blank]:
        """As many blanks as asked for; what is not ready is prepared now. The caller owns them.

        Raises:
            EngineError: one could not be prepared; none is left behind.
        """
        self._takes[spec].append(count)
        self._wanted_blanks[spec] = stock_for(self._takes[spec], self._settings)
        ready = self._blanks[spec]
        taken = [ready.popleft() for _ in range(min(count, len(ready)))]
        slots = asyncio.Semaphore(STARTS)

        async def prepare() -> Blank:
            async with slots:
                return await self._engine.prepare(spec)

        try:
            missing = [prepare] * (count - len(taken))
            return taken + await make_all(missing, undo=self._engine.destroy)
        except BaseException:
            ready.extend(taken)
            raise

    async def _refill_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                while not self._foreground and await self._refill_one():
                    pass
                wait_s = self._quiet_from - time.monotonic()
            except (EngineError, ApiError, OSError) as exc:
                _log.warning("refilling the pool failed, next try in %.0f s: %s", RETRY_S, exc)
                await asyncio.sleep(RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s if wait_s > 0 else None):
                    await self._wake.wait()

    async def _refill_one(self) -> bool:
        """Makes one thing that is missing; False when nothing is, or what is can wait."""
        with self._room.taken(1):
            return await self._make_one()

    async def _make_one(self) -> bool:
        is_quiet = time.monotonic() >= self._quiet_from
        wanted_warm = self._settings.warm_per_template if is_quiet else 1
        for snapshot in list(self._users):
            if len(self._warm[snapshot]) < min(wanted_warm, self._settings.warm_per_template):
                await self._add_warm(snapshot)
                return True
        for spec, wanted in self._wanted_blanks.items():
            if is_quiet and len(self._blanks[spec]) < wanted:
                blank = await self._engine.prepare(spec)
                self._blanks[spec].append(blank)
                return True
        return False

    def _identity(self, machine: Machine) -> Identity:
        return make_identity(WARM_ID, os.urandom, token=self._tokens.of(machine.id))

    async def _add_warm(self, snapshot: Snapshot) -> None:
        blanks = self._blanks[snapshot.spec]
        blank = blanks.popleft() if blanks else await self._engine.prepare(snapshot.spec)
        running = await restore(
            self._engine,
            blank,
            snapshot,
            identity_of=self._identity,
            deadline_s=self._settings.handshake_deadline_s,
        )
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(destroy, self._engine, running)
            paused = _held(running.link)
            await self._engine.pause(running.machine)
            if snapshot in self._users:
                self._warm[snapshot].append(_Warm(running, paused))
                undo.pop_all()
        self._note_warm()

    def _note_warm(self) -> None:
        stock = {
            warm.running.machine.id: snapshot.directory
            for snapshot, ready in self._warm.items()
            for warm in ready
        }
        try:
            self._table.save(stock)
        except ApiError as exc:
            _log.debug("the next server will not find the warm machines: %s", exc.cause)


def _held(link: Link) -> contextlib.ExitStack:
    """Has the clock of a machine stand still that is paused, until this is closed."""
    paused = contextlib.ExitStack()
    paused.enter_context(link.clock.held())
    return paused
