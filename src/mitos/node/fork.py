"""Machines for sandboxes: from a template, from a snapshot on disk, or as copies of a running one.

    fork:  hold the source's link still -> checkpoint -> n blanks restored in parallel -> identities

A paused source is copied as it stands: its agent was at a frame boundary when it was paused. A
hibernated one is copied from its snapshot, and sleeps on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mitos.agent.client import AgentClient
from mitos.agent.identity import make_identity
from mitos.engine.base import Blank, Engine, EngineError, MachineSpec, Snapshot
from mitos.node.egress import proxy_environment
from mitos.node.launch import Launched, destroy, restore, translate
from mitos.node.pool import Pool
from mitos.node.refusal import conflict, engine_errors, unknown_sandbox
from mitos.node.sandbox import Phase, Sandbox
from mitos.node.settings import NodeSettings
from mitos.node.template import Template
from mitos.node.together import make_all
from mitos.wire.errors import ApiError

__all__ = ["Forker"]


class Forker:
    """Makes machines; whoever gets one owns it.

    Args:
        engine: makes them.
        pool: blanks and warm sandboxes.
        settings: folders and deadlines.
    """

    def __init__(self, engine: Engine, pool: Pool, settings: NodeSettings) -> None:
        self._engine = engine
        self._pool = pool
        self._settings = settings

    async def launch(self, template: Template, sandbox_id: str) -> Launched:
        """A machine of the template under the id: a warm one if there is one.

        Raises:
            ApiError: it did not come up; nothing of it is left.
        """
        environment = proxy_environment(template.record.network)
        launched = await self._pool.take_warm(template.record.id)
        if launched is None:
            return await self.wake(template.snapshot, sandbox_id, environment)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(destroy, self._engine, launched)
            await self.rename(
                AgentClient(launched.link, _ended_in_handshake), sandbox_id, environment
            )
            undo.pop_all()
        return launched

    async def wake(
        self,
        snapshot: Snapshot,
        sandbox_id: str,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Launched:
        """A machine that goes on from the snapshot, under the id.

        Raises:
            ApiError: it did not come up; nothing of it is left, and the snapshot stays.
        """
        with engine_errors(f"sandbox {sandbox_id} could not be started"):
            (blank,) = await self._pool.take_blanks(snapshot.spec, 1)
            return await self._restore(blank, snapshot, sandbox_id, environment)

    async def rename(
        self,
        agent: AgentClient,
        sandbox_id: str,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Gives a running machine the identity of another id; what runs in it goes on.

        Raises:
            ApiError: it did not confirm.
        """
        deadline_s = self._settings.handshake_deadline_s
        identity = make_identity(sandbox_id, os.urandom, environment)
        await agent.identify(identity, forked=False, deadline_s=deadline_s)

    async def snapshot(self, source: Sandbox, directory: Path) -> Snapshot:
        """Writes the source's machine into the directory; it goes on, or stays paused.

        Preconditions: the caller holds `source.lock`.

        Raises:
            ApiError: it does not hold still, has ended, or the disk is full. The directory is gone.
        """
        if not source.phase.can_snapshot or source.body is None:
            raise conflict(
                source.id,
                f"sandbox {source.id} is {source.phase.value.lower()}",
                "Wait until it is ready, then try again.",
            )
        with engine_errors(f"sandbox {source.id} could not be snapshotted"):
            if source.phase is Phase.PAUSED:
                return await self._engine.checkpoint(source.machine, directory)
            async with self.still(source):
                return await self._engine.checkpoint(source.machine, directory)
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def still(self, source: Sandbox) -> AsyncIterator[None]:
        """Holds a running sandbox's agent at a frame boundary.

        Raises:
            ApiError: it does not hold still, or has ended.
        """
        try:
            async with source.link.still(self._settings.freeze_deadline_s):
                yield
        except TimeoutError:
            raise ApiError(
                "internal",
                f"sandbox {source.id} did not hold still for a snapshot",
                remediation="The sandbox is overloaded; try again, or give it more CPU.",
                context={"sandbox": source.id},
            ) from None
        except ConnectionError as exc:
            raise unknown_sandbox(source.id) from exc

    async def fork(
        self, source: Sandbox, child_ids: Sequence[str], environment: Mapping[str, str]
    ) -> list[Launched]:
        """Copies of the source, all from one instant, in the order of the ids; all or none.

        Args:
            source: goes on as it was.
            child_ids: one for each copy.
            environment: variables that the copies get over the source's.

        Raises:
            ApiError: one did not come up.
        """
        async with self._copies(source, len(child_ids)) as (blanks, snapshot):
            makers = [
                functools.partial(self._restore, blank, snapshot, child_id, environment)
                for blank, child_id in zip(blanks, child_ids, strict=True)
            ]
            with engine_errors(f"{source.id} could not be forked"):
                return await make_all(makers, undo=functools.partial(destroy, self._engine))
        raise AssertionError("unreachable")

    async def fork_some(
        self, source: Sandbox, child_ids: Sequence[str]
    ) -> list[Launched | ApiError]:
        """As `fork`, but a child that does not come up leaves its error, and the others go on.

        Raises:
            ApiError: no snapshot could be taken, so there are no children.
        """
        async with self._copies(source, len(child_ids)) as (blanks, snapshot):
            results = await asyncio.gather(
                *(
                    self._restore(blank, snapshot, child_id)
                    for blank, child_id in zip(blanks, child_ids, strict=True)
                ),
                return_exceptions=True,
            )
        return [_outcome(result, f"{source.id} could not be forked") for result in results]

    @contextlib.asynccontextmanager
    async def _copies(
        self, source: Sandbox, count: int
    ) -> AsyncIterator[tuple[list[Blank], Snapshot]]:
        async with source.lock:
            spec = source.snapshot.spec if source.snapshot else source.machine.spec
            with self._work_directory() as work:
                blanks = asyncio.create_task(self._take_blanks(spec, count))
                try:
                    snapshot = source.snapshot or await self.snapshot(source, work / "snapshot")
                    yield await blanks, snapshot
                except BaseException:
                    await self._discard(blanks)
                    raise

    async def _take_blanks(self, spec: MachineSpec, count: int) -> list[Blank]:
        with engine_errors("no machine could be prepared for a fork"):
            return await self._pool.take_blanks(spec, count)

    async def _discard(self, blanks: asyncio.Task[list[Blank]]) -> None:
        """Frees the blanks of a fork that failed, whether or not a restore consumed them."""
        blanks.cancel()
        with contextlib.suppress(asyncio.CancelledError, EngineError, ApiError):
            for blank in await blanks:
                await self._engine.destroy(blank)

    async def _restore(
        self,
        blank: Blank,
        snapshot: Snapshot,
        sandbox_id: str,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Launched:
        return await restore(
            self._engine,
            blank,
            snapshot,
            identity=make_identity(sandbox_id, os.urandom, environment),
            deadline_s=self._settings.handshake_deadline_s,
        )

    @contextlib.contextmanager
    def _work_directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix="fork-", dir=self._settings.scratch))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _outcome(result: Launched | BaseException, what: str) -> Launched | ApiError:
    match result:
        case Launched() | ApiError():
            return result
        case EngineError():
            return translate(result, what)
        case _:
            raise result


async def _ended_in_handshake() -> ApiError:
    return ApiError("internal", "the machine ended before it confirmed its identity")
