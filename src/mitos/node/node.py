"""The node: every template and sandbox of one machine, and all that can be done to them.

`server` calls this and nothing below it. Each method is all or nothing: when it raises, what it had
made is gone.

    create:  warm sandbox (or blank + template snapshot) -> identity -> ready
    fork:    hold the source's link still -> checkpoint -> n blanks restored in parallel ->
        identities -> ready
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from mitos.engine.base import Blank, Engine, EngineError, MachineEnd, Resources, Snapshot
from mitos.host import lock
from mitos.images.store import ImageStore
from mitos.node import vitals
from mitos.node.deadline import Reaper
from mitos.node.guest import Guest
from mitos.node.idempotency import Keyring
from mitos.node.identity import make_identity
from mitos.node.launch import Launched, destroy, restore, translate
from mitos.node.ledger import EndReason, Ledger
from mitos.node.pool import Pool
from mitos.node.sandbox import Phase, Sandbox, SandboxRecord
from mitos.node.settings import NodeSettings
from mitos.node.template import Progress, SnapshotStore, Template, TemplateRecord
from mitos.node.together import make_all
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture

__all__ = ["Node"]

_log = logging.getLogger(__name__)

END_REASON_DEADLINE_S = 2.0
"""How long a machine whose link broke may take to say why; one that still runs is then ended."""

_REASON_OF_END = {
    MachineEnd.OUT_OF_MEMORY: EndReason.OUT_OF_MEMORY,
    MachineEnd.EXITED: EndReason.EXITED,
    MachineEnd.LOST: EndReason.LOST,
    MachineEnd.DESTROYED: EndReason.TERMINATED,
}


class Node:
    """One machine's sandboxes.

    Args:
        settings: folders and limits.
        engine: owned by the node: started and closed with it.
        images: root filesystems for templates.
    """

    def __init__(self, settings: NodeSettings, engine: Engine, images: ImageStore) -> None:
        self.settings = settings
        self.engine = engine
        self._snapshots = SnapshotStore(settings, engine, images)
        self._pool = Pool(engine, settings)
        self._reaper = Reaper(self._end_at_deadline)
        self._templates: dict[str, Template] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._reserved: set[str] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._undo = contextlib.AsyncExitStack()
        self._ledger: Ledger
        self._keys: Keyring

    async def start(self) -> None:
        """Opens the state, clears what a crashed predecessor left, starts the pool and the reaper.

        Raises:
            ApiError: the engine cannot run on this machine, or another server uses this home.
        """
        async with contextlib.AsyncExitStack() as undo:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            undo.enter_context(_sole_owner(self.settings.home))
            self._ledger = Ledger(self.settings.home / "state.db", time.time)
            undo.callback(self._ledger.close)
            self._keys = Keyring(self._ledger)
            self._snapshots.prepare()
            _empty(self.settings.scratch)
            undo.callback(shutil.rmtree, self.settings.scratch, ignore_errors=True)
            try:
                await self.engine.start()
            except EngineError as exc:
                raise translate(exc, f"the {self.engine.name} engine cannot run here") from exc
            undo.push_async_callback(self.engine.close)
            if leftovers := self._ledger.end_leftovers():
                _log.warning("%d sandboxes ended with the previous server", len(leftovers))
            self._pool.start()
            undo.push_async_callback(self._pool.close)
            self._reaper.start()
            undo.push_async_callback(self._reaper.close)
            await self._load_templates()
            self._undo = undo.pop_all()

    async def close(self) -> None:
        """Terminates every sandbox and frees everything. Idempotent."""
        await asyncio.gather(
            *(self._end(s, EndReason.SERVER_STOPPED) for s in list(self._sandboxes.values()))
        )
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._undo.aclose()

    # Templates

    async def create_template(
        self,
        template_id: str,
        *,
        network: NetworkPosture | None = None,
        resources: Resources | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> TemplateRecord:
        """Makes a template ready to start sandboxes from; an existing one takes the new posture.

        Raises:
            ApiError: `not_found` for an unknown image, `build_failed`, or the engine's failure.
        """
        async with self._keys.use(idempotency_key, "template") as use:
            if use and use.created and use.created[0] in self._templates:
                return self._templates[use.created[0]].record
            wanted = resources or self.settings.default_resources
            template = self._templates.get(template_id)
            if template is None or template.record.resources != wanted:
                template = await self._build_template(template_id, wanted, progress)
            record = replace(template.record, network=network or NetworkPosture())
            if self._templates.get(template_id) != replace(template, record=record):
                await self._add_template(replace(template, record=record))
            if use:
                use.record([template_id])
            return record

    def list_templates(self) -> list[TemplateRecord]:
        """Every template, sorted by id."""
        return [self._templates[name].record for name in sorted(self._templates)]

    def get_template(self, template_id: str) -> TemplateRecord:
        """One template.

        Raises:
            ApiError: `not_found`.
        """
        return self._template(template_id).record

    async def delete_template(self, template_id: str) -> None:
        """Forgets a template; its sandboxes live on, and its snapshot stays for the next time.

        Raises:
            ApiError: `not_found`.
        """
        self._template(template_id)
        del self._templates[template_id]
        self._ledger.delete_template(template_id)
        await self._pool.remove_template(template_id)

    # Sandboxes

    async def create(
        self, template_id: str, sandbox_id: str, *, idempotency_key: str | None = None
    ) -> SandboxRecord:
        """Starts a sandbox from a template.

        Raises:
            ApiError: `not_found`, `invalid_input` (409, the id is in use), `quota_exceeded`,
                `internal`.
        """
        async with self._keys.use(idempotency_key, "fork") as use:
            if use and (replay := self._replay(use.created)):
                return replay[0]
            template = self._template(template_id)
            with self._reserve([sandbox_id]), self._pool.foreground():
                started = time.perf_counter()
                launched = await self._launch(template, sandbox_id)
                record = self._add_sandbox(
                    launched,
                    sandbox_id,
                    template_id=template_id,
                    network=template.record.network,
                    started=started,
                )
            if use:
                use.record([sandbox_id])
            return record

    async def fork(
        self, source_id: str, child_ids: Sequence[str], *, idempotency_key: str | None = None
    ) -> list[SandboxRecord]:
        """Copies a running sandbox, all children from one instant; the source goes on.

        Raises:
            ApiError: as `create`; no child exists when it is raised.
        """
        async with self._keys.use(idempotency_key, "fork") as use:
            if use and (replay := self._replay(use.created)):
                return replay
            source = self._sandbox(source_id)
            with self._reserve(child_ids), self._pool.foreground():
                started = time.perf_counter()
                launched = await self._fork(source, child_ids)
                records = [
                    self._add_sandbox(
                        child,
                        child_id,
                        template_id=source.template_id,
                        network=source.network,
                        started=started,
                        parent_id=source_id,
                    )
                    for child, child_id in zip(launched, child_ids, strict=True)
                ]
            if use:
                use.record(list(child_ids))
            return records

    def list_sandboxes(self) -> list[SandboxRecord]:
        """Every live sandbox, oldest first."""
        return [sandbox.record() for sandbox in self._sandboxes.values()]

    async def usages(self) -> list[vitals.SandboxUsage]:
        """What each live sandbox costs; one that ends meanwhile is left out."""
        found = await asyncio.gather(*map(vitals.measure, self._sandboxes.values()))
        return [usage for usage in found if usage is not None]

    def get_sandbox(self, sandbox_id: str) -> SandboxRecord:
        """One sandbox.

        Raises:
            ApiError: `not_found`, or `idle_timeout` when its deadline ended it.
        """
        return self._sandbox(sandbox_id).record()

    def on_end(self, sandbox_id: str, callback: Callable[[], None]) -> None:
        """Calls back once when the sandbox ends, for whatever reason.

        Raises:
            ApiError: `not_found`.
        """
        self._sandbox(sandbox_id).on_end.append(callback)

    async def terminate(self, sandbox_id: str) -> None:
        """Ends a sandbox; its id is free at once.

        Raises:
            ApiError: `not_found`, also for one that ended already.
        """
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise _unknown(sandbox_id)
        await self._end(sandbox, EndReason.TERMINATED)

    def set_timeout(self, sandbox_id: str, timeout_s: int) -> int:
        """Sets or replaces the deadline, now + `timeout_s`; returns it in unix seconds.

        Raises:
            ApiError: `timeout_too_large`, `invalid_input` for zero or less, `not_found`.
        """
        sandbox = self._sandbox(sandbox_id)
        if timeout_s <= 0:
            raise ApiError("invalid_input", "timeout_seconds must be at least 1")
        check_timeout(timeout_s, self.settings.max_timeout_s, sandbox_id)
        deadline = time.time() + timeout_s
        sandbox.deadline = deadline
        if sandbox.phase is Phase.PAUSED:
            sandbox.remaining_s = timeout_s
        else:
            self._reaper.set(sandbox_id, deadline)
        return int(deadline)

    async def pause(self, sandbox_id: str) -> None:
        """Stops every process, and the sandbox's deadline with them. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        sandbox = self._sandbox(sandbox_id)
        async with sandbox.lock:
            if sandbox.phase is not Phase.READY:
                return
            with _engine_errors(f"sandbox {sandbox_id} could not be paused"):
                await self.engine.pause(sandbox.machine)
            sandbox.phase = Phase.PAUSED
            sandbox.paused.enter_context(sandbox.link.unwatched())
            self._reaper.clear(sandbox_id)
            if sandbox.deadline is not None:
                sandbox.remaining_s = max(sandbox.deadline - time.time(), 0.0)

    async def resume(self, sandbox_id: str) -> None:
        """Undoes `pause`; the deadline goes on from where it stood. Idempotent.

        Raises:
            ApiError: `not_found`, or the engine's failure.
        """
        sandbox = self._sandbox(sandbox_id)
        async with sandbox.lock:
            if sandbox.phase is not Phase.PAUSED:
                return
            with _engine_errors(f"sandbox {sandbox_id} could not be resumed"):
                await self.engine.resume(sandbox.machine)
            sandbox.paused.close()
            sandbox.phase = Phase.READY
            if sandbox.remaining_s is not None:
                sandbox.deadline = time.time() + sandbox.remaining_s
                sandbox.remaining_s = None
                self._reaper.set(sandbox_id, sandbox.deadline)

    # Runtime

    def guest(self, sandbox_id: str) -> Guest:
        """The agent of a running sandbox.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        sandbox = self._sandbox(sandbox_id)
        sandbox.require_running()
        return sandbox.guest

    def stream(self, sandbox_id: str) -> AbstractContextManager[Guest]:
        """The same, plus one of the sandbox's stream slots while the context is open.

        Raises:
            ApiError: also `too_many_streams`.
        """
        return self._sandbox(sandbox_id).stream()

    def vitals(self, sandbox_id: str, interval_s: float) -> AsyncGenerator[vitals.Vitals]:
        """Samples of a sandbox as a whole, until it ends or the caller stops.

        Args:
            sandbox_id: a running sandbox.
            interval_s: seconds between two samples; the first comes at once.

        Raises:
            ApiError: `not_found`, `idle_timeout`, or `failed_precondition` while it is paused.
        """
        machine = self._sandbox(sandbox_id).machine
        return vitals.watch(lambda: self.guest(sandbox_id), machine, interval_s=interval_s)

    # Inside

    async def _build_template(
        self, template_id: str, resources: Resources, progress: Progress | None
    ) -> Template:
        started = time.perf_counter()
        snapshot, rootfs_key = await self._snapshots.ensure(
            template_id, resources, progress or functools.partial(_log.info, "template %s")
        )
        record = TemplateRecord(
            id=template_id,
            created_at=_now(),
            creation_time_ms=_elapsed_ms(started),
            network=NetworkPosture(),
            resources=resources,
        )
        return Template(record, snapshot, rootfs_key)

    async def _launch(self, template: Template, sandbox_id: str) -> Launched:
        identity = make_identity(sandbox_id, os.urandom)
        deadline_s = self.settings.handshake_deadline_s
        if launched := await self._pool.take_warm(template.record.id):
            guest = Guest(launched.link, _ended_in_handshake)
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(destroy, self.engine, launched)
                await guest.identify(identity, forked=False, deadline_s=deadline_s)
                undo.pop_all()
            return launched
        with _engine_errors(f"sandbox {sandbox_id} could not be started"):
            (blank,) = await self._pool.take_blanks(template.snapshot.spec, 1)
            return await restore(
                self.engine, blank, template.snapshot, identity=identity, deadline_s=deadline_s
            )

    async def _fork(self, source: Sandbox, child_ids: Sequence[str]) -> list[Launched]:
        async with source.lock:
            source.require_running()
            with self._work_directory() as work, _engine_errors(f"{source.id} could not be forked"):
                blanks = asyncio.create_task(
                    self._pool.take_blanks(source.machine.spec, len(child_ids))
                )
                try:
                    snapshot = await self._checkpoint(source, work / "snapshot")
                    return await self._restore_all(await blanks, snapshot, child_ids)
                except BaseException:
                    await self._discard(blanks)
                    raise

    async def _checkpoint(self, source: Sandbox, directory: Path) -> Snapshot:
        try:
            async with source.link.still(self.settings.freeze_deadline_s):
                return await self.engine.checkpoint(source.machine, directory)
        except TimeoutError:
            raise ApiError(
                "internal",
                f"sandbox {source.id} did not hold still for a snapshot",
                remediation="The sandbox is overloaded; try again, or give it more CPU.",
                context={"sandbox": source.id},
            ) from None
        except ConnectionError as exc:
            raise _unknown(source.id) from exc

    async def _restore_all(
        self, blanks: list[Blank], snapshot: Snapshot, child_ids: Sequence[str]
    ) -> list[Launched]:
        makers = [
            functools.partial(
                restore,
                self.engine,
                blank,
                snapshot,
                identity=make_identity(child_id, os.urandom),
                deadline_s=self.settings.handshake_deadline_s,
            )
            for blank, child_id in zip(blanks, child_ids, strict=True)
        ]
        return await make_all(makers, undo=functools.partial(destroy, self.engine))

    async def _discard(self, blanks: asyncio.Task[list[Blank]]) -> None:
        """Frees the blanks of a fork that failed, whether or not a restore consumed them."""
        blanks.cancel()
        with contextlib.suppress(asyncio.CancelledError, EngineError):
            for blank in await blanks:
                await self.engine.destroy(blank)

    @contextlib.contextmanager
    def _work_directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix="fork-", dir=self.settings.scratch))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def _reserve(self, sandbox_ids: Sequence[str]) -> Iterator[None]:
        """Holds ids, so that no other request takes them while their machines come up."""
        taken = self._sandboxes.keys() | self._reserved
        for sandbox_id in sandbox_ids:
            if sandbox_id in taken:
                raise ApiError(
                    "invalid_input",
                    f"a sandbox named {sandbox_id} exists already",
                    remediation="Choose another id, or terminate that sandbox first.",
                    context={"sandbox": sandbox_id},
                    status=409,
                )
        if len(taken) + len(sandbox_ids) > self.settings.max_sandboxes:
            raise ApiError(
                "quota_exceeded",
                f"this server runs at most {self.settings.max_sandboxes} sandboxes",
                context={"dimension": "sandboxes", "limit": self.settings.max_sandboxes},
            )
        self._reserved.update(sandbox_ids)
        try:
            yield
        finally:
            self._reserved.difference_update(sandbox_ids)

    def _add_sandbox(
        self,
        launched: Launched,
        sandbox_id: str,
        *,
        template_id: str,
        network: NetworkPosture,
        started: float,
        parent_id: str | None = None,
    ) -> SandboxRecord:
        record = SandboxRecord(
            id=sandbox_id,
            template_id=template_id,
            created_at=_now(),
            fork_time_ms=_elapsed_ms(started),
            network=network,
            phase=Phase.READY,
            deadline_unix=None,
            parent_id=parent_id,
        )
        sandbox = Sandbox(
            record,
            machine=launched.machine,
            link=launched.link,
            max_streams=self.settings.max_streams,
        )
        self._sandboxes[sandbox_id] = sandbox
        self._ledger.add_sandbox(
            sandbox_id, template_id=template_id, machine_id=launched.machine.id
        )
        watcher = asyncio.create_task(self._watch(sandbox), name=f"watch-{sandbox_id}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return record

    async def _watch(self, sandbox: Sandbox) -> None:
        """Gives a sandbox up when its machine ends by itself or its link breaks."""
        waits = [
            asyncio.create_task(sandbox.link.lost.wait()),
            asyncio.create_task(sandbox.machine.wait_end()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if sandbox.phase is Phase.TERMINATING:
            return
        end = MachineEnd.LOST
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_REASON_DEADLINE_S):
                end = await sandbox.machine.wait_end()
        _log.warning("sandbox %s ended by itself: %s", sandbox.id, end.value)
        await self._end(sandbox, _REASON_OF_END[end])

    async def _end(self, sandbox: Sandbox, reason: EndReason) -> None:
        if self._sandboxes.get(sandbox.id) is not sandbox:
            return
        sandbox.phase = Phase.TERMINATING
        del self._sandboxes[sandbox.id]
        self._reaper.clear(sandbox.id)
        self._ledger.end_sandbox(sandbox.id, reason)
        for callback in sandbox.on_end:
            callback()
        await destroy(self.engine, Launched(sandbox.machine, sandbox.link))

    async def _end_at_deadline(self, sandbox_id: str) -> None:
        if sandbox := self._sandboxes.get(sandbox_id):
            await self._end(sandbox, EndReason.DEADLINE)

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None:
            return sandbox
        raise _ended(sandbox_id, self._ledger.end_reason(sandbox_id))

    def _template(self, template_id: str) -> Template:
        template = self._templates.get(template_id)
        if template is None:
            raise ApiError(
                "not_found",
                f"no template named {template_id!r}",
                remediation="Create it first: POST /v1/templates.",
                context={"template": template_id},
            )
        return template

    def _replay(self, created: list[str] | None) -> list[SandboxRecord] | None:
        """What an earlier request of the same key made, if all of it still runs."""
        if created and all(name in self._sandboxes for name in created):
            return [self._sandboxes[name].record() for name in created]
        return None

    async def _add_template(self, template: Template) -> None:
        """Offers the template; warm sandboxes of an older snapshot of the same id are dropped."""
        record = template.record
        old = self._templates.get(record.id)
        if old is not None and old.snapshot != template.snapshot:
            await self._pool.remove_template(record.id)
        self._templates[record.id] = template
        self._ledger.save_template(record.id, template.to_json())
        self._pool.add_template(template)

    async def _load_templates(self) -> None:
        """Offers again what an earlier server offered, where its snapshot can still be used."""
        for body in self._ledger.templates():
            template = await self._snapshots.load(body)
            if template is not None:
                self._templates[template.record.id] = template
                self._pool.add_template(template)


def check_timeout(requested_s: int, ceiling_s: int, sandbox_id: str) -> None:
    """Refuses a timeout over the server's ceiling; 0 means no ceiling.

    Raises:
        ApiError: `timeout_too_large`; never clamped.
    """
    if 0 < ceiling_s < requested_s:
        raise ApiError(
            "timeout_too_large",
            f"a timeout of {requested_s} s is over the ceiling of {ceiling_s} s",
            context={
                "sandbox": sandbox_id,
                "requested_s": requested_s,
                "max_timeout_s": ceiling_s,
            },
        )


def _unknown(sandbox_id: str) -> ApiError:
    return ApiError(
        "not_found", f"no sandbox named {sandbox_id!r}", context={"sandbox": sandbox_id}
    )


_CAUSE_OF_END = {
    EndReason.OUT_OF_MEMORY: "it reached its memory limit and was killed",
    EndReason.EXITED: "its first process ended",
    EndReason.LOST: "its processes vanished from the host",
    EndReason.SERVER_STOPPED: "its server was stopped",
}


def _ended(sandbox_id: str, reason: EndReason | None) -> ApiError:
    """The error for a sandbox that is not there: unknown, reaped, or ended by itself."""
    if reason is EndReason.DEADLINE:
        return ApiError(
            "idle_timeout",
            f"sandbox {sandbox_id} ended at its deadline",
            context={"sandbox": sandbox_id},
        )
    if reason is None or reason is EndReason.TERMINATED:
        return _unknown(sandbox_id)
    return ApiError(
        "not_found",
        f"sandbox {sandbox_id} has ended",
        cause=_CAUSE_OF_END[reason],
        remediation="Create a new sandbox; a larger resources.mem_size_mib helps against memory."
        if reason is EndReason.OUT_OF_MEMORY
        else "Create a new sandbox.",
        context={"sandbox": sandbox_id},
    )


async def _ended_in_handshake() -> ApiError:
    return ApiError("internal", "the machine ended before it confirmed its identity")


@contextlib.contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    """Turns the engine's errors into ours, at the node's edge."""
    try:
        yield
    except EngineError as exc:
        raise translate(exc, what) from exc


@contextlib.contextmanager
def _sole_owner(home: Path) -> Iterator[None]:
    """Two servers with one home would remove each other's sandboxes: the second is refused."""
    try:
        with lock.held(home / "server.lock"):
            yield
    except lock.LockedError as exc:
        raise ApiError(
            "internal",
            f"another server uses the home {home}",
            cause=str(exc),
            remediation="Stop that server, or give this one a home of its own with --home.",
            status=503,
        ) from exc


def _empty(directory: Path) -> None:
    """Makes the folder, or removes what is in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _elapsed_ms(since: float) -> float:
    """Milliseconds since a reading of `time.perf_counter`; never 0, as the wire promises."""
    return max((time.perf_counter() - since) * 1000, 0.001)
