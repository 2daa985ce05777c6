"""Each storage call of each request fails once: a typed error, nothing half done, then it works."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from mitos.engine.fake import FakeEngine
from mitos.wire.errors import ApiError
from mitos.wire.network import NetworkPosture
from tests.node.conftest import Node, StartNode
from tests.node.consistency import check

FULL, BROKEN = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR


class FailingConnection:
    """A connection of which one call fails."""

    def __init__(self, connection: sqlite3.Connection, number: int, code: int) -> None:
        self._connection = connection
        self._left = number
        self._code = code
        self.has_failed = False

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self._left -= 1
        if self._left == 0:
            self.has_failed = True
            error = sqlite3.OperationalError("it fails because the test wants it to")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


Act = Callable[[Node], Awaitable[object]]


async def checkpoint_id(node: Node) -> str:
    return node.list_checkpoints("one")[0].id


async def hibernated(node: Node) -> None:
    await node.hibernate("one")


async def paused(node: Node) -> None:
    await node.pause("one")


async def nothing(node: Node) -> None:
    pass


async def fork_inside(node: Node) -> None:
    source = node._parts.registry.find(node.owner, "one")
    await node._parts.creation.fork_from_inside(source, ["x", "y"])


async def delete_checkpoint(node: Node) -> None:
    node.delete_checkpoint("one", await checkpoint_id(node))


async def set_timeout(node: Node) -> None:
    node.set_timeout("one", 60)


ACTS: dict[str, tuple[Act, Act]] = {
    "create": (nothing, lambda node: node.create("python", "new")),
    "create with a key": (
        nothing,
        lambda node: node.create("python", "new", idempotency_key="key"),
    ),
    "fork": (nothing, lambda node: node.fork("one", ["x", "y", "z"], idempotency_key="key")),
    "fork of a hibernated one": (hibernated, lambda node: node.fork("one", ["x", "y"])),
    "partial fork": (nothing, lambda node: node.fork_some("one", ["x", "y"])),
    "fork from inside": (nothing, fork_inside),
    "pause": (nothing, lambda node: node.pause("one")),
    "resume": (paused, lambda node: node.resume("one")),
    "hibernate": (nothing, lambda node: node.hibernate("one")),
    "hibernate a paused one": (paused, lambda node: node.hibernate("one")),
    "wake": (hibernated, lambda node: node.agent("one").stat("/workspace")),
    "pause a hibernated one": (hibernated, lambda node: node.pause("one")),
    "checkpoint": (nothing, lambda node: node.checkpoint("one", "kept")),
    "delete a checkpoint": (nothing, delete_checkpoint),
    "set a timeout": (nothing, set_timeout),
    "promote": (nothing, lambda node: node.promote("one")),
    "make a template": (
        nothing,
        lambda node: node.templates.create("base", idempotency_key="key"),
    ),
    "change a template": (
        nothing,
        lambda node: node.templates.create("python", network=NetworkPosture(block=True)),
    ),
    "delete a template": (nothing, lambda node: node.templates.delete("python")),
}


async def prepared(start_node: StartNode) -> Node:
    node = await start_node()
    await node.templates.create("python")
    await node.create("python", "parent")
    await node.fork("parent", ["one"])
    await node.checkpoint("one", "first")
    node.set_timeout("one", 600)
    return node


@pytest.mark.parametrize("code", [FULL, BROKEN], ids=["full", "broken"])
@pytest.mark.parametrize("name", ACTS)
async def test_a_storage_call_that_fails_once(
    start_node: StartNode, engine: FakeEngine, name: str, code: int
) -> None:
    before, act = ACTS[name]
    for number in itertools.count(1):
        node = await prepared(start_node)
        await before(node)
        with failing(node, number, code) as connection:
            (error,) = await asyncio.gather(act(node), return_exceptions=True)

        check(node, engine)
        if not connection.has_failed:
            assert not isinstance(error, BaseException)
            break
        if error is not None and isinstance(error, BaseException):
            assert isinstance(error, ApiError)
            expected = ("quota_exceeded", 429) if code == FULL else ("internal", 503)
            assert expected == (error.code, error.status)
            assert error.remediation
            await act(node)
            check(node, engine)
        await forget(node)
    assert number > 2


@pytest.mark.parametrize(
    "code",
    [FULL, BROKEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CORRUPT],
    ids=["full", "broken", "read-only", "locked", "torn"],
)
async def test_an_end_happens_whatever_storage_call_fails(
    start_node: StartNode, engine: FakeEngine, code: int
) -> None:
    for number in itertools.count(1):
        node = await prepared(start_node)
        with failing(node, number, code) as connection:
            await node.terminate("parent")
        assert ["one"] == [each.id for each in node.list_sandboxes()]
        await node.create("python", "next")  # writes what is owed

        check(node, engine)
        await forget(node)
        if not connection.has_failed:
            break
    assert number > 2


@contextlib.contextmanager
def failing(node: Node, number: int, code: int) -> Iterator[FailingConnection]:
    """One storage call of the block fails."""
    database = node._parts.state.database
    usual = database._connection
    connection = FailingConnection(usual, number, code)
    database._connection = connection  # type: ignore[assignment]
    try:
        yield connection
    finally:
        database._connection = usual


async def forget(node: Node) -> None:
    """Closes a node and removes its state, so that the next begins anew."""
    await node.close()
    (node.settings.home / "state.db").unlink()
    shutil.rmtree(node.settings.home / "checkpoints")
