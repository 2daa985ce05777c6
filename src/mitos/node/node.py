"""The node: every template and sandbox of one machine.

Node          what it will be: settings, engine, images
RunningNode   what it is between `start` and `close`
Tenant        one owner's part of it, for those who call (`node/tenant.py`)
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path

from mitos.agent.link import Link
from mitos.engine.base import Engine, EngineError
from mitos.host import lock, private
from mitos.images.store import ImageStore
from mitos.node import vitals
from mitos.node.clock import Clock, SystemClock
from mitos.node.end import EndReason
from mitos.node.inside.egress import serve_egress
from mitos.node.inside.self_service import SelfService, serve_self_service
from mitos.node.intake import Intake
from mitos.node.lifecycle.checkpointing import Checkpointing
from mitos.node.lifecycle.creation import Creation
from mitos.node.lifecycle.deadline import Reaper
from mitos.node.lifecycle.drain import Drain
from mitos.node.lifecycle.freeze import Freezer
from mitos.node.lifecycle.lifecycle import Lifecycle
from mitos.node.lifecycle.pressure import Pressure
from mitos.node.lifecycle.recovery import Recovery
from mitos.node.lifecycle.registry import Registry
from mitos.node.lifecycle.relatives import Relatives
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.lifecycle.supervisor import Supervisor
from mitos.node.lifecycle.suspension import Suspension
from mitos.node.lifecycle.use import UseLog
from mitos.node.machine.launcher import Launcher
from mitos.node.machine.pool import Pool
from mitos.node.machine.token import LinkTokens
from mitos.node.parts import Parts
from mitos.node.principal import Principal
from mitos.node.refusal import storage_errors, translate
from mitos.node.settings import NodeSettings, OnStop
from mitos.node.state.event import EventFeed
from mitos.node.state.state import State
from mitos.node.template.catalog import CONFIGURATION_NAME, RecipeCatalog
from mitos.node.template.snapshot import SnapshotStore
from mitos.node.template.templates import Templates
from mitos.node.tenant import Tenant
from mitos.node.trial import try_out
from mitos.wire.errors import ApiError

__all__ = ["Node", "RunningNode"]


class Node:
    """A node that has not started.

    Args:
        settings: folders and limits.
        engine: started and closed with the node.
        clock: what deadlines are measured by.
    """

    def __init__(self, settings: NodeSettings, engine: Engine, clock: Clock | None = None) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock or SystemClock()

    async def start(self) -> RunningNode:
        """Opens the state, takes over what an earlier server left, starts the pool and the reaper.

        Returns:
            The running node; the caller closes it.

        Raises:
            ApiError: the engine cannot run on this machine, another server uses this home, or its
                state cannot be read.
        """
        with storage_errors("the server cannot use its folders"):
            return await self._start()
        raise AssertionError("unreachable")

    async def _start(self) -> RunningNode:
        settings, engine, clock = self._settings, self._engine, self._clock
        async with contextlib.AsyncExitStack() as undo:
            _take(settings.home, undo)
            state = State.open(settings.home, clock)
            undo.callback(state.close)
            _empty(settings.scratch)
            undo.callback(shutil.rmtree, settings.scratch, ignore_errors=True)
            undo.push_async_callback(engine.close)
            await _start(engine)
            tokens = LinkTokens.of_home(settings.home)
            pool = Pool(engine, tokens, state.warm, settings)
            undo.push_async_callback(pool.close)
            reaper = Reaper(clock)
            parts = _assemble(settings, engine, clock, state, pool, tokens, reaper)
            await parts.templates.load()
            parts.supervisor.start([_serve_egress, partial(_serve_self_service, parts.creation)])
            undo.push_async_callback(parts.supervisor.close)
            await Recovery(
                engine, tokens, state, pool, parts.lifecycle, parts.supervisor, parts.creation
            ).run()
            pool.start()
            uses = UseLog(parts.registry, state.sandboxes, clock)
            uses.start()
            undo.push_async_callback(uses.close)
            undo.push_async_callback(parts.drain.close)
            reaper.start(parts.supervisor.expire)
            undo.push_async_callback(reaper.close)
            end = partial(parts.supervisor.end, reason=EndReason.HOST_MEMORY)
            pressure = Pressure(parts.registry, end)
            pressure.start()
            undo.push_async_callback(pressure.close)
            undo.callback(state.events.close)
            parts.supervisor.on_stop = settings.on_stop
            return RunningNode(parts, engine, undo.pop_all())
        raise AssertionError("unreachable")


class RunningNode:
    """A node that runs.

    Attributes:
        settings: folders and limits.
        engine: runs the machines.
    """

    def __init__(self, parts: Parts, engine: Engine, undo: contextlib.AsyncExitStack) -> None:
        self._parts = parts
        self._undo = undo
        self.settings = parts.settings
        self.engine = engine

    @property
    def events(self) -> EventFeed:
        """What happens to the sandboxes and templates of all owners."""
        return self._parts.state.events

    @property
    def drain(self) -> Drain:
        """Ends the taking of new work, and begins it again."""
        return self._parts.drain

    def tenant(self, principal: Principal) -> Tenant:
        """The part of one owner."""
        return Tenant(self._parts, principal)

    def count_sandboxes(self) -> int:
        """How many sandboxes live, of all owners."""
        return len(self._parts.registry.living())

    def has_label(self, label: str) -> bool:
        """True when a living sandbox, of whatever owner, has the id but for its case."""
        return any(each.id.lower() == label for each in self._parts.registry.living())

    def count_templates(self) -> int:
        """How many templates are offered, to all owners."""
        return self._parts.templates.count()

    async def usages(self) -> list[vitals.SandboxUsage]:
        """What each living sandbox costs; one that ends meanwhile is left out."""
        found = await asyncio.gather(*map(vitals.measure, self._parts.registry.living()))
        return [usage for usage in found if usage is not None]

    async def count_processes(self, uid: str) -> int | None:
        """The processes of a sandbox; None unless it runs. Never wakes it.

        Raises:
            ApiError: it does not answer.
        """
        sandbox = self._parts.registry.by_uid(uid)
        observer = None if sandbox is None else sandbox.observer()
        return None if observer is None else await observer.count_processes()

    async def close(self, on_stop: OnStop | None = None) -> None:
        """Frees everything. Idempotent.

        Args:
            on_stop: what becomes of the sandboxes; None: what the settings say.
        """
        on_stop = on_stop or self.settings.on_stop
        self._parts.supervisor.on_stop = on_stop
        if on_stop is OnStop.HIBERNATE:
            await self._parts.suspension.hibernate_all(self._parts.registry)
        await self._undo.aclose()


def _assemble(
    settings: NodeSettings,
    engine: Engine,
    clock: Clock,
    state: State,
    pool: Pool,
    tokens: LinkTokens,
    reaper: Reaper,
) -> Parts:
    """The parts, each given what it needs; nothing is begun yet."""
    launcher = Launcher(engine, pool, tokens, settings)
    freezer = Freezer(engine, settings.freeze_deadline_s)
    intake = Intake()
    registry = Registry(state.sandboxes, settings.quota)
    lifecycle = Lifecycle(state.sandboxes, registry, reaper, clock, settings.idle_timeout_s)
    supervisor = Supervisor(settings, launcher, lifecycle, registry, state, clock)
    suspension = Suspension(engine, freezer, lifecycle, supervisor, state.hibernations)
    return Parts(
        settings=settings,
        snapshot_format=engine.snapshot_format,
        state=state,
        registry=registry,
        lifecycle=lifecycle,
        supervisor=supervisor,
        creation=Creation(
            launcher,
            freezer,
            lifecycle,
            supervisor,
            registry,
            state,
            intake,
            snapshot_format=engine.snapshot_format,
            guest_forks=settings.guest_forks,
        ),
        suspension=suspension,
        drain=Drain(intake, registry, suspension),
        checkpointing=Checkpointing(
            freezer, launcher, lifecycle, supervisor, registry, state.checkpoints
        ),
        relatives=Relatives(launcher, lifecycle, supervisor, registry, state.sandboxes),
        templates=Templates(
            RecipeCatalog(settings.home / CONFIGURATION_NAME),
            SnapshotStore(settings, engine, ImageStore(settings.home)),
            state.templates,
            state.keys,
            pool,
            intake,
            settings.default_resources,
        ),
    )


async def _start(engine: Engine) -> None:
    try:
        await engine.start()
        if not engine.is_tested:
            await try_out(engine)
    except EngineError as exc:
        raise translate(exc, f"the {engine.name} engine cannot run here") from exc


def _serve_self_service(
    creation: Creation, sandbox: Sandbox, link: Link
) -> Coroutine[None, None, None]:
    async def fork(child_ids: Sequence[str]) -> None:
        await creation.fork_from_inside(sandbox, child_ids)

    return serve_self_service(link, SelfService(sandbox, fork))


def _serve_egress(sandbox: Sandbox, link: Link) -> Coroutine[None, None, None] | None:
    network = sandbox.row.network
    return serve_egress(link, network, sandbox.id) if network.allows_egress else None


def _take(home: Path, undo: contextlib.AsyncExitStack) -> None:
    """Makes the home, and makes it this server's: two would remove each other's sandboxes."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        undo.enter_context(lock.held(home / "server.lock"))
    except lock.LockedError as exc:
        raise ApiError(
            "internal",
            f"another server uses the home {home}",
            cause=str(exc),
            remediation="Stop that server, or give this one a home of its own with --home.",
            status=503,
        ) from exc
    except OSError as exc:
        raise _not_writable("home", home, exc) from exc


def _empty(scratch: Path) -> None:
    """Makes the folder anew: what is there may be anybody's. A mounted one is emptied."""
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        if scratch.is_mount():
            private.tighten(scratch)
        else:
            scratch.mkdir(mode=0o700, parents=True)
    except OSError as exc:
        raise _not_writable("scratch", scratch, exc) from exc


def _not_writable(name: str, folder: Path, exc: OSError) -> ApiError:
    return ApiError(
        "internal",
        f"the {name} folder {folder} cannot be used",
        cause=str(exc),
        remediation=f"Give one that this user may write to, with --{name}.",
        status=503,
    )
