"""Makes machines: from a template, from a snapshot on disk, or as copies of one instant.

fork:  snapshot of the source (or the one it sleeps in) -> n blanks restored in parallel
-> identities
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mitos.agent.client import AgentClient
from mitos.agent.identity import Identity, make_identity
from mitos.engine.base import Blank, Engine, EngineError, Machine, MachineSpec, Snapshot
from mitos.node.machine.gather import make_all
from mitos.node.machine.pool import Pool
from mitos.node.machine.running import RunningMachine, destroy, leave, restore
from mitos.node.machine.token import LinkTokens
from mitos.node.refusal import engine_errors, storage_errors, storage_failed, translate
from mitos.node.settings import NodeSettings
from mitos.wire.errors import ApiError

__all__ = ["Copies", "Launcher", "TakeSnapshot"]

_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

RESTORES_AT_ONCE = 16
"""Of one fork. More would only take processors from each other, each against its deadline."""

TakeSnapshot = Callable[[Path], Awaitable[Snapshot]]
"""Writes the source of a fork into a folder; or gives the snapshot that there is already."""


class Launcher:
    """Makes machines; whoever gets one owns it.

    Args:
        engine: makes them.
        pool: blanks and warm machines.
        tokens: of the machines' links.
        settings: folders and deadlines.
    """

    def __init__(
        self, engine: Engine, pool: Pool, tokens: LinkTokens, settings: NodeSettings
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._tokens = tokens
        self._settings = settings

    async def launch(
        self, snapshot: Snapshot, sandbox_id: str, environment: Mapping[str, str] = _NO_VARIABLES
    ) -> RunningMachine:
        """A machine that goes on from the snapshot, under the id: a warm one if there is one.

        Args:
            snapshot: where it goes on from; it stays.
            sandbox_id: whose machine it is.
            environment: variables over the snapshot's.

        Raises:
            ApiError: it did not come up; nothing of it is left.
        """
        async with self._pool.foreground(1, snapshot.size_bytes()):
            running = await self._pool.take_warm(snapshot)
            if running is None:
                with engine_errors(f"sandbox {sandbox_id} could not be started"):
                    (blank,) = await self._pool.take_blanks(snapshot.spec, 1)
                    return await self._restore(blank, snapshot, sandbox_id, environment)
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(self.destroy, running)
                await self.rename(running, sandbox_id, environment)
                undo.pop_all()
            return running
        raise AssertionError("unreachable")

    async def rename(
        self,
        running: RunningMachine,
        sandbox_id: str,
        environment: Mapping[str, str] = _NO_VARIABLES,
    ) -> None:
        """Gives a running machine the identity of another id; what runs in it goes on.

        Raises:
            ApiError: it did not confirm.
        """
        identity = self._identity(running.machine, sandbox_id, environment)
        agent = AgentClient(running.link, _ended)
        deadline_s = self._settings.handshake_deadline_s
        await agent.identify(identity, forked=False, deadline_s=deadline_s)

    async def destroy(self, running: RunningMachine) -> None:
        """Ends a machine."""
        await destroy(self._engine, running)

    async def leave(self, running: RunningMachine) -> None:
        """Lets go of a machine, which goes on for a later server."""
        await leave(self._engine, running)

    @contextlib.asynccontextmanager
    async def copies(
        self, spec: MachineSpec, count: int, copied_bytes: int, take_snapshot: TakeSnapshot
    ) -> AsyncIterator[Copies]:
        """Prepares a fork: blanks are taken while the snapshot is.

        Args:
            spec: of the source's machine.
            count: of the copies.
            copied_bytes: memory of the source.
            take_snapshot: called once.

        Raises:
            ApiError: no snapshot, or no blanks.
        """
        async with self._pool.foreground(count, copied_bytes):
            with self._work_directory() as work:
                async with self._prepared(spec, count, work, take_snapshot) as copies:
                    yield copies

    @contextlib.asynccontextmanager
    async def _prepared(
        self, spec: MachineSpec, count: int, work: Path, take_snapshot: TakeSnapshot
    ) -> AsyncIterator[Copies]:
        blanks = asyncio.create_task(self._take_blanks(spec, count))
        try:
            snapshot = await take_snapshot(work / "snapshot")
            yield Copies(self._engine, self._restore, await blanks, snapshot)
        except BaseException:
            await self._discard(blanks)
            raise

    async def _take_blanks(self, spec: MachineSpec, count: int) -> list[Blank]:
        with engine_errors("no machine could be prepared for a fork"):
            return await self._pool.take_blanks(spec, count)

    async def _discard(self, blanks: asyncio.Task[list[Blank]]) -> None:
        """Frees the blanks of a fork that failed, whether or not a restore consumed them."""
        blanks.cancel()
        with contextlib.suppress(asyncio.CancelledError, EngineError, ApiError, OSError):
            for blank in await blanks:
                await self._engine.destroy(blank)

    async def _restore(
        self, blank: Blank, snapshot: Snapshot, sandbox_id: str, environment: Mapping[str, str]
    ) -> RunningMachine:
        return await restore(
            self._engine,
            blank,
            snapshot,
            identity_of=lambda machine: self._identity(machine, sandbox_id, environment),
            deadline_s=self._settings.handshake_deadline_s,
        )

    def _identity(
        self, machine: Machine, sandbox_id: str, environment: Mapping[str, str]
    ) -> Identity:
        token = self._tokens.of(machine.id)
        return make_identity(sandbox_id, os.urandom, environment, token=token)

    @contextlib.contextmanager
    def _work_directory(self) -> Iterator[Path]:
        with storage_errors("the scratch folder has no place for a fork"):
            directory = Path(tempfile.mkdtemp(prefix="fork-", dir=self._settings.scratch))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


_Restore = Callable[[Blank, Snapshot, str, Mapping[str, str]], Awaitable[RunningMachine]]


class Copies:
    """A fork whose snapshot is taken and whose blanks wait."""

    def __init__(
        self, engine: Engine, restore_one: _Restore, blanks: list[Blank], snapshot: Snapshot
    ) -> None:
        self._engine = engine
        self._restore_one = restore_one
        self._blanks = blanks
        self._snapshot = snapshot
        self._slots = asyncio.Semaphore(RESTORES_AT_ONCE)

    async def _restore(
        self, blank: Blank, child_id: str, environment: Mapping[str, str]
    ) -> RunningMachine:
        async with self._slots:
            return await self._restore_one(blank, self._snapshot, child_id, environment)

    async def make_all(
        self, source_id: str, child_ids: Sequence[str], environment: Mapping[str, str]
    ) -> list[RunningMachine]:
        """All copies in the order of the ids, or none.

        Raises:
            ApiError: one did not come up.
        """
        with engine_errors(_failed(source_id)):
            return await make_all(
                [
                    functools.partial(self._restore, blank, child_id, environment)
                    for blank, child_id in zip(self._blanks, child_ids, strict=True)
                ],
                undo=functools.partial(destroy, self._engine),
            )
        raise AssertionError("unreachable")

    async def make_some(
        self, source_id: str, child_ids: Sequence[str]
    ) -> list[RunningMachine | ApiError]:
        """The same, but a copy that does not come up leaves its error, and the others go on."""
        results = await asyncio.gather(
            *(
                self._restore(blank, child_id, _NO_VARIABLES)
                for blank, child_id in zip(self._blanks, child_ids, strict=True)
            ),
            return_exceptions=True,
        )
        try:
            return [_outcome(result, _failed(source_id)) for result in results]
        except BaseException:
            made = [each for each in results if isinstance(each, RunningMachine)]
            await asyncio.gather(*(destroy(self._engine, each) for each in made))
            raise


def _failed(source_id: str) -> str:
    return f"{source_id} could not be forked"


def _outcome(result: RunningMachine | BaseException, what: str) -> RunningMachine | ApiError:
    match result:
        case RunningMachine() | ApiError():
            return result
        case EngineError():
            return translate(result, what)
        case OSError():
            return storage_failed(result, what)
        case _:
            raise result


async def _ended() -> ApiError:
    return ApiError("internal", "the machine ended before it confirmed its identity")
