"""Readers of the feed: folding what they get is always exactly the listing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.follow import FeedItem, Listing, Quiet
from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.node.principal import Principal
from mitos.node.state import event as event_module
from mitos.node.state.event import EventKind
from mitos.node.tenant import Tenant
from mitos.wire.errors import ApiError
from tests.node.clock import ManualClock
from tests.node.conftest import Node, StartNode
from tests.node.consistency import check

OPERATIONS = 500


class Reader:
    """Folds a stream, over as many connections as it takes."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self.cursor: int | None = None
        self.living: dict[str, SandboxRecord] = {}
        self.listings = 0

    async def read(self, count: int | None) -> None:
        """Takes so many steps of a new connection, or all that there is, and breaks it."""
        stream: AsyncGenerator[FeedItem] = self._tenant.follow(self.cursor, quiet_s=0.01)
        async with aclosing(stream) as items:
            async for item in items:
                if isinstance(item, Quiet):
                    return
                self._take(item)
                if count is not None and (count := count - 1) <= 0:
                    return

    def _take(self, item: FeedItem) -> None:
        if isinstance(item, Listing):
            self.listings += 1
            self.cursor = item.last_id
            self.living = {record.uid: record for record in item.sandboxes}
            return
        assert not isinstance(item, Quiet)
        assert self.cursor is None or item.id > self.cursor, "told twice"
        self.cursor = item.id
        if item.sandbox is None:
            return
        record = SandboxRecord.of(item.sandbox)
        assert (record.uid in self.living) is (item.kind is not EventKind.CREATED)
        if item.kind is EventKind.ENDED:
            del self.living[record.uid]
        else:
            self.living[record.uid] = record


async def operate(random_: random.Random, node: Tenant, clock: ManualClock, number: int) -> None:
    """One request of many kinds; refusals are part of it."""
    ids = [record.id for record in node.list_sandboxes()]
    one = random_.choice(ids) if ids else "none"
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: node.create("python", f"s{number}"),
        lambda: node.create("python", f"again{number % 3}", idempotency_key=f"k{number % 5}"),
        lambda: node.fork(one, [f"f{number}a", f"f{number}b"]),
        lambda: node.fork_some(one, [f"p{number}"]),
        lambda: node.terminate(one),
        lambda: node.terminate(one, subtree=True),
        lambda: node.pause(one),
        lambda: node.resume(one),
        lambda: node.hibernate(one),
        lambda: node.agent(one).stat("/workspace"),
        lambda: node.promote(one),
        lambda: node.checkpoint(one),
        lambda: node.restore(one, node.list_checkpoints(one)[0].id),
        lambda: asyncio.to_thread(int),
    ]
    try:
        node.set_timeout(one, random_.randint(30, 300))
        await random_.choice(acts)()
    except (ApiError, IndexError):
        pass
    if number % 10 == 0:
        await clock.advance(random_.randint(1, 60))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 10))]
)
@pytest.mark.timeout(120)
async def test_folding_the_feed_gives_exactly_the_listing(
    node: Node,
    clock: ManualClock,
    engine: FakeEngine,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """500 operations with readers that break, resume, sleep too long, and one that starts late."""
    monkeypatch.setattr(event_module, "KEPT", 200)
    random_ = random.Random(seed)
    theirs = node.running.tenant(Principal("theirs"))
    await theirs.templates.create("python")
    readers = [Reader(node) for _ in range(3)]
    for number in range(OPERATIONS):
        await operate(random_, random_.choice([node, node, theirs]), clock, number)
        await readers[0].read(random_.randint(1, 4))
        if random_.random() < 0.1:
            await readers[1].read(None)
    readers.append(Reader(node))
    for reader in readers:
        await reader.read(None)

    listed = {record.uid: record for record in node.list_sandboxes()}
    assert [listed] * 4 == [reader.living for reader in readers]
    assert 1 == readers[1].listings, "it kept up, so it never had to start over"
    assert 1 == readers[2].listings
    assert {"local", "theirs"} >= {
        event.owner for event in node.running.events.after(node.running.events.last_id - 50) or []
    }


async def test_concurrent_requests_are_told_in_the_order_they_happened(
    node: Node, engine: FakeEngine
) -> None:
    reader = Reader(node)
    await reader.read(None)
    await asyncio.gather(
        *(node.create("python", f"s{n}") for n in range(20)),
        *(reader.read(3) for _ in range(1)),
    )
    await asyncio.gather(*(node.fork(f"s{n}", [f"c{n}"]) for n in range(10)))
    await asyncio.gather(*(node.hibernate(f"s{n}") for n in range(20)))
    await asyncio.gather(*(node.terminate(f"s{n}") for n in range(5)))
    await reader.read(None)

    assert {record.uid: record for record in node.list_sandboxes()} == reader.living
    check(node, engine)


async def test_a_waiting_reader_ends_with_the_node(node: Node) -> None:
    stream = node.follow(None, quiet_s=60)
    assert isinstance(await anext(stream), Listing)
    waiting = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)

    await node.close()

    assert await asyncio.wait_for(waiting, 5) is None


async def test_a_template_that_cannot_be_offered_again_is_told(start_node: StartNode) -> None:
    """Once; and again, once it can be."""
    node = await start_node()
    await node.templates.create("python")
    snapshots = node.settings.home / "snapshots"

    async def told_after_restart() -> list[EventKind]:
        nonlocal node
        await node.close()
        node = await start_node()
        events = [each for each in node.running.events._events if each.template is not None]
        assert (events[-1].kind is EventKind.TEMPLATE) is bool(node.templates.records())
        return [event.kind for event in events]

    assert [EventKind.TEMPLATE] == await told_after_restart()
    snapshots.rename(snapshots.with_name("hidden"))
    gone = [EventKind.TEMPLATE, EventKind.TEMPLATE_DELETED]
    assert gone == await told_after_restart()
    assert gone == await told_after_restart()
    snapshots.rmdir()
    snapshots.with_name("hidden").rename(snapshots)
    assert [*gone, EventKind.TEMPLATE] == await told_after_restart()
