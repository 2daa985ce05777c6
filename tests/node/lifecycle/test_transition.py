"""Every cell of the table phase x event, done to a sandbox on the fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitos.engine.fake import FakeEngine
from mitos.node.end import EndReason
from mitos.node.lifecycle.sandbox import Sandbox
from mitos.node.phase import Event, Phase, transition
from mitos.node.state.event import EventKind
from mitos.wire.errors import ApiError
from tests.node.conftest import Node, output
from tests.node.consistency import all_kept, check

READY, PAUSED, ASLEEP, GONE = Phase.READY, Phase.PAUSED, Phase.HIBERNATED, Phase.TERMINATING

EXPECTED: dict[Event, dict[Phase, Phase | None]] = {
    Event.CALL: {READY: READY, PAUSED: None, ASLEEP: READY, GONE: None},
    Event.PAUSE: {READY: PAUSED, PAUSED: PAUSED, ASLEEP: PAUSED, GONE: None},
    Event.RESUME: {READY: READY, PAUSED: READY, ASLEEP: READY, GONE: None},
    Event.HIBERNATE: {READY: ASLEEP, PAUSED: ASLEEP, ASLEEP: ASLEEP, GONE: None},
    Event.WAKE: {READY: READY, PAUSED: PAUSED, ASLEEP: READY, GONE: None},
    Event.CHECKPOINT: {READY: READY, PAUSED: PAUSED, ASLEEP: READY, GONE: None},
    Event.FORK: {READY: READY, PAUSED: PAUSED, ASLEEP: ASLEEP, GONE: None},
    Event.RESTORE: {READY: READY, PAUSED: READY, ASLEEP: READY, GONE: None},
    Event.PROMOTE: {READY: READY, PAUSED: None, ASLEEP: READY, GONE: None},
    Event.END: {READY: GONE, PAUSED: GONE, ASLEEP: GONE, GONE: GONE},
}
CELLS = [(phase, event) for event, row in EXPECTED.items() for phase in row]

ORDERS = [
    (READY, Event.PAUSE, "pause"),
    (READY, Event.HIBERNATE, "checkpoint"),
    (READY, Event.CHECKPOINT, "checkpoint"),
    (READY, Event.FORK, "checkpoint"),
    (READY, Event.FORK, "restore"),
    (READY, Event.RESTORE, "restore"),
    (PAUSED, Event.RESUME, "resume"),
    (PAUSED, Event.HIBERNATE, "checkpoint"),
    (PAUSED, Event.CHECKPOINT, "checkpoint"),
    (PAUSED, Event.FORK, "checkpoint"),
    (PAUSED, Event.FORK, "restore"),
    (PAUSED, Event.RESTORE, "restore"),
    *(
        (ASLEEP, event, "restore")
        for event in EXPECTED
        if event not in (Event.HIBERNATE, Event.END)
    ),
]
"""Which order to the engine an event leads to first in a phase."""

ALWAYS_WRITTEN = (Event.RESTORE, Event.FORK, Event.CHECKPOINT, Event.PROMOTE)
WRITES = [
    (phase, event)
    for phase, event in CELLS
    if event not in (Event.END, Event.CALL)
    and EXPECTED[event][phase] is not None
    and (EXPECTED[event][phase] is not phase or event in ALWAYS_WRITTEN)
]
"""Cells in which the state is written before the event is over."""


@dataclass
class Case:
    """A sandbox `one` with a parent, a checkpoint, and what can be done to it."""

    node: Node
    sandbox: Sandbox
    checkpoint: str

    async def bring_to(self, phase: Phase) -> None:
        suspension = self.node._parts.suspension
        match phase:
            case Phase.PAUSED:
                await suspension.pause(self.sandbox)
            case Phase.HIBERNATED:
                await suspension.hibernate(self.sandbox)
            case Phase.TERMINATING:
                await self.end()
        assert phase is self.sandbox.phase

    async def happens(self, event: Event) -> None:
        await self.verbs()[event]()

    def verbs(self) -> dict[Event, Callable[[], Awaitable[object]]]:
        parts, sandbox, node = self.node._parts, self.sandbox, self.node
        quota = node.settings.quota(node.owner)
        snapshot_format = parts.snapshot_format
        return {
            Event.CALL: lambda: sandbox.agent.stat("/workspace"),
            Event.PAUSE: lambda: parts.suspension.pause(sandbox),
            Event.RESUME: lambda: parts.suspension.resume(sandbox),
            Event.HIBERNATE: lambda: parts.suspension.hibernate(sandbox),
            Event.WAKE: self.wake,
            Event.CHECKPOINT: lambda: parts.checkpointing.checkpoint(sandbox, "kept", quota),
            Event.FORK: lambda: parts.creation.fork(sandbox, ["child"]),
            Event.RESTORE: lambda: parts.checkpointing.restore(
                sandbox, self.checkpoint, snapshot_format
            ),
            Event.PROMOTE: lambda: parts.relatives.promote(sandbox),
            Event.END: self.end,
        }

    async def wake(self) -> None:
        supervisor = self.node._parts.supervisor
        async with supervisor.holding(self.sandbox, Event.WAKE):
            await supervisor.wake(self.sandbox)

    async def end(self) -> None:
        await self.node._parts.supervisor.end(self.sandbox, EndReason.TERMINATED)

    def saved_phase(self) -> str:
        rows = self.node._parts.state.database.query(
            "SELECT phase FROM sandbox WHERE uid = ?", self.sandbox.uid
        )
        return str(rows[0][0])

    def home(self, folder: str) -> list[Path]:
        return list((self.node.settings.home / folder).iterdir())

    def sandboxes(self) -> set[str]:
        return {record.id for record in self.node.list_sandboxes()}


@pytest.fixture
async def case(node: Node) -> Case:
    await node.create("python", "parent")
    await node.checkpoint("parent", "kept")
    await node.fork("parent", ["one"])
    kept = await node.checkpoint("one", "before")
    sandbox = node._parts.registry.find(node.owner, "one")
    return Case(node, sandbox, kept.id)


def ids(cells: list[tuple[Phase, Event]]) -> list[str]:
    return [f"{phase.value}-{event.value}" for phase, event in cells]


@pytest.mark.parametrize(("phase", "event"), CELLS, ids=ids(CELLS))
def test_the_table_says(phase: Phase, event: Event) -> None:
    found = transition(phase, event)

    assert EXPECTED[event][phase] is (None if found is None else found.to)


@pytest.mark.parametrize(("phase", "event"), CELLS, ids=ids(CELLS))
async def test_a_cell(case: Case, engine: FakeEngine, phase: Phase, event: Event) -> None:
    await case.bring_to(phase)
    expected = EXPECTED[event][phase]

    if expected is None:
        with pytest.raises(ApiError) as caught:
            await case.happens(event)
        assert {PAUSED: 409, GONE: 404}[phase] == caught.value.status
    else:
        await case.happens(event)

    assert (expected or phase) is case.sandbox.phase
    assert (expected or phase).value == case.saved_phase()
    told = [e for e in all_kept(case.node.running.events) if e.sandbox is not None]
    last = next(e for e in reversed(told) if e.sandbox and e.sandbox.uid == case.sandbox.uid)
    if case.sandbox.phase is GONE:
        assert EventKind.ENDED is last.kind
    else:
        assert case.sandbox.row == last.sandbox
    check(case.node, engine)


@pytest.mark.parametrize(("phase", "event", "order"), ORDERS)
async def test_an_order_that_fails_leaves_the_phase(
    case: Case, engine: FakeEngine, phase: Phase, event: Event, order: str
) -> None:
    await case.bring_to(phase)
    before, machines = case.sandboxes(), len(engine.machines)
    engine.fail_next = order

    with pytest.raises(ApiError):
        await case.happens(event)

    assert phase is case.sandbox.phase
    assert phase.value == case.saved_phase()
    assert before == case.sandboxes()
    assert machines == len(engine.machines)
    await case.happens(event)
    assert EXPECTED[event][phase] is case.sandbox.phase


@pytest.mark.parametrize(("phase", "event", "order"), ORDERS)
async def test_an_end_in_mid_event_wins(
    case: Case, engine: FakeEngine, phase: Phase, event: Event, order: str
) -> None:
    await case.bring_to(phase)
    hold = engine.hold_next(order)
    item = asyncio.create_task(case.happens(event))  # type: ignore[arg-type]
    await hold.reached.wait()

    await case.end()
    hold.let_go.set()
    outcome = (await asyncio.gather(item, return_exceptions=True))[0]

    assert GONE is case.sandbox.phase
    assert "one" not in case.sandboxes()
    if event is not Event.FORK:
        assert isinstance(outcome, ApiError), outcome
        assert ("not_found", "it was terminated") == (outcome.code, outcome.cause)
    for name in case.sandboxes():
        await case.node.terminate(name)
    assert {} == engine.machines
    assert [] == [*case.home("hibernated"), *case.home("checkpoints")]


@pytest.mark.parametrize(("phase", "event"), WRITES, ids=ids(WRITES))
async def test_a_write_that_fails_leaves_the_phase(
    case: Case, engine: FakeEngine, phase: Phase, event: Event
) -> None:
    await case.bring_to(phase)
    before, machines = case.sandboxes(), len(engine.machines)
    database = case.node._parts.state.database
    database._connection.execute("PRAGMA query_only = 1")

    with pytest.raises(ApiError) as caught:
        await case.happens(event)
    database._connection.execute("PRAGMA query_only = 0")

    assert ("internal", 503) == (caught.value.code, caught.value.status)
    assert phase is case.sandbox.phase
    assert phase.value == case.saved_phase()
    assert before == case.sandboxes()
    assert machines == len(engine.machines)
    assert 2 == len(case.home("checkpoints"))
    assert (1 if phase is ASLEEP else 0) == len(case.home("hibernated"))
    if phase is READY:
        assert "one\n" == await output(case.node, "one", "hostname")
    await case.happens(event)
    assert EXPECTED[event][phase] is case.sandbox.phase
    if case.sandbox.phase is READY:
        assert "ok\n" == await output(case.node, case.sandbox.id, "echo ok")


async def test_an_end_is_written_when_the_state_can_be_written_again(case: Case) -> None:
    database = case.node._parts.state.database
    database._connection.execute("PRAGMA query_only = 1")
    await case.node.terminate("one")

    assert {"parent"} == case.sandboxes()
    database._connection.execute("PRAGMA query_only = 0")
    await case.node.create("python", "two")
    assert GONE.value == case.saved_phase()
