"""What is kept ready so that create and fork are fast: blanks and warm sandboxes.

A *blank* is a prepared machine waiting for a restore, the same for every snapshot of an equal spec.
A *warm* sandbox is a template's snapshot already restored and answering. One background task
refills both, one machine at a time, and stands aside while a create or fork is running and shortly
after: who creates a sandbox often forks it next, and both want the processors to themselves. A
template whose last warm sandbox was taken is not kept waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from mitos.agent.identity import make_identity
from mitos.engine.base import Blank, Engine, EngineError, MachineSpec
from mitos.node.launch import Launched, destroy, restore
from mitos.node.settings import NodeSettings
from mitos.node.template import Template
from mitos.node.together import make_all
from mitos.wire.errors import ApiError

__all__ = ["Pool"]

_log = logging.getLogger(__name__)

QUIET_S = 0.25
"""How long nobody must have wanted a machine before what can wait is refilled."""

RETRY_S = 5.0
"""Pause after a failed refill: a full disk does not get better in a tight loop."""

WARM_ID = "warm"
"""Provisional id of a warm sandbox; it gets its own when somebody takes it."""


@dataclass(frozen=True, slots=True)
class _Warm:
    """A warm sandbox, paused until it is taken: an idle one costs CPU too."""

    launched: Launched
    rest: contextlib.ExitStack


class Pool:
    """Blanks and warm sandboxes of one engine. Owns every machine in it.

    Args:
        engine: makes the machines.
        settings: how many are kept.
    """

    def __init__(self, engine: Engine, settings: NodeSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._blanks: dict[MachineSpec, deque[Blank]] = defaultdict(deque)
        self._wanted_blanks: dict[MachineSpec, int] = {}
        self._warm: dict[str, deque[_Warm]] = defaultdict(deque)
        self._templates: dict[str, Template] = {}
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
        for template_id in list(self._templates):
            await self.remove_template(template_id)
        for blanks in self._blanks.values():
            while blanks:
                await self._engine.destroy(blanks.popleft())

    def add_template(self, template: Template) -> None:
        """Keeps warm sandboxes of the template, and blanks of its spec."""
        self._templates[template.record.id] = template
        self._wanted_blanks.setdefault(template.snapshot.spec, self._settings.blanks_per_spec)
        self._wake.set()

    async def remove_template(self, template_id: str) -> None:
        """Forgets the template and destroys its warm sandboxes."""
        self._templates.pop(template_id, None)
        for warm in self._warm.pop(template_id, ()):
            await destroy(self._engine, warm.launched)

    @contextlib.contextmanager
    def foreground(self) -> Iterator[None]:
        """While this is open the refiller stands aside: somebody waits for a machine."""
        self._foreground += 1
        try:
            yield
        finally:
            self._foreground -= 1
            self._quiet_from = time.monotonic() + QUIET_S
            self._wake.set()

    async def take_warm(self, template_id: str) -> Launched | None:
        """A warm sandbox of the template, or None when there is none. The caller owns it."""
        ready = self._warm[template_id]
        while ready:
            warm = ready.popleft()
            self._wake.set()
            if await self._woken(warm):
                return warm.launched
            await destroy(self._engine, warm.launched)
        return None

    async def _woken(self, warm: _Warm) -> bool:
        """Lets it go on; False when it has ended in its sleep."""
        try:
            await self._engine.resume(warm.launched.machine)
        except EngineError as exc:
            _log.warning("a warm sandbox could not be woken: %s", exc)
            return False
        warm.rest.close()
        return not warm.launched.link.lost.is_set()

    async def take_blanks(self, spec: MachineSpec, count: int) -> list[Blank]:
        """As many blanks as asked for; what is not ready is prepared now. The caller owns them.

        Raises:
            EngineError: one could not be prepared; none is left behind.
        """
        self._wanted_blanks[spec] = min(
            max(count, self._settings.blanks_per_spec), self._settings.max_blanks_per_spec
        )
        ready = self._blanks[spec]
        taken = [ready.popleft() for _ in range(min(count, len(ready)))]
        slots = asyncio.Semaphore(2 * (os.cpu_count() or 1))

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
            except (EngineError, ApiError) as exc:
                _log.warning("refilling the pool failed, next try in %.0f s: %s", RETRY_S, exc)
                await asyncio.sleep(RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s if wait_s > 0 else None):
                    await self._wake.wait()

    async def _refill_one(self) -> bool:
        """Makes one thing that is missing; False when nothing is, or what is can wait."""
        is_quiet = time.monotonic() >= self._quiet_from
        wanted_warm = self._settings.warm_per_template if is_quiet else 1
        for template_id, template in list(self._templates.items()):
            if len(self._warm[template_id]) < min(wanted_warm, self._settings.warm_per_template):
                await self._add_warm(template_id, template)
                return True
        for spec, wanted in self._wanted_blanks.items():
            if is_quiet and len(self._blanks[spec]) < wanted:
                blank = await self._engine.prepare(spec)
                self._blanks[spec].append(blank)
                return True
        return False

    async def _add_warm(self, template_id: str, template: Template) -> None:
        spec = template.snapshot.spec
        blanks = self._blanks[spec]
        blank = blanks.popleft() if blanks else await self._engine.prepare(spec)
        launched = await restore(
            self._engine,
            blank,
            template.snapshot,
            identity=make_identity(WARM_ID, os.urandom),
            deadline_s=self._settings.handshake_deadline_s,
        )
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(destroy, self._engine, launched)
            rest = contextlib.ExitStack()
            rest.enter_context(launched.link.unwatched())
            await self._engine.pause(launched.machine)
            if self._templates.get(template_id) is template:
                self._warm[template_id].append(_Warm(launched, rest))
                undo.pop_all()
