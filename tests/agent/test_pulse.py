"""An agent that does not answer: what is told, what is kept, and how it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mitos.agent import pulse
from mitos.agent.link import Link
from mitos.agent.stream import Deadline, LinkLostError, OverdueError, UnresponsiveError
from mitos.engine.base import HostProcess, Usage
from mitos.engine.fake.pipe import pipe
from mitos.host.stopwatch import Stopwatch
from mitos.wire.link import DATA_LIMIT, Channel, Fields, Frame, FrameType, Operation, Status
from tests.agent.peer import Peer

PROMPT_S = 10.0


class Machine:
    """A link to a peer, and the CPU time of what is behind it."""

    def __init__(self) -> None:
        ours, self.theirs = pipe()
        self.share_of_cpu = 0.0
        self.stopped_process: HostProcess | None = None
        self.link = Link(ours, self)
        self.peer = Peer(self.theirs)

    async def usage(self) -> Usage:
        return Usage(memory_bytes=0, cpu_seconds=time.monotonic() * self.share_of_cpu)

    async def stopped(self) -> HostProcess | None:
        return self.stopped_process

    async def answer(self) -> None:
        """Answers pings from now on."""
        while True:
            frame = await self.peer.next()
            if frame.type is FrameType.PING:
                await self.peer.send(Frame(FrameType.PONG, payload=frame.payload))


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    times = {"IDLE_S": 0.4, "CALL_S": 0.05, "SILENCE_S": 0.1, "BUSY_SILENCE_S": 0.6, "STEP_S": 0.02}
    times["LOOK_S"] = 0.1
    for name, value in times.items():
        monkeypatch.setattr(pulse, name, value)
    monkeypatch.setattr(pulse, "is_crowded", lambda: False)
    machine = Machine()
    yield machine
    await machine.link.close()
    await machine.theirs.close()


async def fails(work: object) -> None:
    """The work is told that the agent does not answer."""
    with pytest.raises(UnresponsiveError):
        async with asyncio.timeout(PROMPT_S):
            await work  # type: ignore[misc]


async def test_a_call_on_a_silent_agent_is_told_and_the_link_stays(machine: Machine) -> None:
    stream = await machine.link.open(Operation.EXEC, Fields())

    await fails(stream.read())

    assert not machine.link.is_responsive
    assert not machine.link.lost.is_set()
    await fails(machine.link.open(Operation.STAT, Fields()))
    async with asyncio.timeout(PROMPT_S):
        await machine.link.end_stream(stream)


async def test_an_agent_that_answers_again_is_used_again(machine: Machine) -> None:
    async with await machine.link.open(Operation.EXEC, Fields()) as stream:
        await fails(stream.read())

    kinds = [(await machine.peer.next()).type for _ in range(3)]
    await machine.peer.send(Frame(FrameType.PONG, payload=bytes(8)))
    await machine.peer.send(Frame(FrameType.CLOSE, stream.id, Status.CANCELED))
    answering = asyncio.create_task(machine.answer())
    async with asyncio.timeout(PROMPT_S):
        while not machine.link.is_responsive:
            await asyncio.sleep(0.01)
        again = await machine.link.open(Operation.STAT, Fields())
        await machine.peer.send(Frame(FrameType.CLOSE, again.id, Status.OK))
        assert (await again.finish()).status is Status.OK
    answering.cancel()

    assert {FrameType.OPEN, FrameType.PING, FrameType.CANCEL} == set(kinds)
    assert stream.id not in machine.link._streams


async def test_an_idle_agent_is_asked_as_well(machine: Machine) -> None:
    async with asyncio.timeout(PROMPT_S):
        assert FrameType.PING is (await machine.peer.next()).type
        while machine.link.is_responsive:
            await asyncio.sleep(0.01)


async def test_a_long_call_on_an_agent_that_answers_goes_on(machine: Machine) -> None:
    answering = asyncio.create_task(machine.answer())
    stream = await machine.link.open(Operation.EXEC, Fields())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await stream.read()

    assert machine.link.is_responsive
    answering.cancel()


@pytest.mark.parametrize("kind", ["busy", "crowded"])
async def test_one_that_has_to_work_may_take_longer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "busy":
        machine.share_of_cpu = 0.9
    else:
        monkeypatch.setattr(pulse, "is_crowded", lambda: True)
    began = time.monotonic()
    stream = await machine.link.open(Operation.EXEC, Fields())

    await fails(stream.read())

    assert time.monotonic() - began >= pulse.CALL_S + pulse.BUSY_SILENCE_S


async def test_a_call_that_hangs_on_a_stopped_process_is_told_which(machine: Machine) -> None:
    answering = asyncio.create_task(machine.answer())
    stream = await machine.link.open(Operation.STAT, Fields())
    machine.stopped_process = HostProcess.FILES

    with pytest.raises(UnresponsiveError) as caught:
        async with asyncio.timeout(PROMPT_S):
            await stream.read()

    assert caught.value.stopped is HostProcess.FILES
    await machine.peer.send(Frame(FrameType.PONG, payload=bytes(8)))
    with pytest.raises(UnresponsiveError) as caught:
        await machine.link.open(Operation.STAT, Fields())
    assert caught.value.stopped is HostProcess.FILES
    machine.stopped_process = None
    async with asyncio.timeout(PROMPT_S):
        while not machine.link.is_responsive:
            await asyncio.sleep(0.01)
        await machine.link.open(Operation.STAT, Fields())
    answering.cancel()


async def test_an_idle_machine_whose_process_is_stopped_is_noticed(machine: Machine) -> None:
    answering = asyncio.create_task(machine.answer())
    machine.stopped_process = HostProcess.KERNEL
    async with asyncio.timeout(PROMPT_S):
        while machine.link.is_responsive:
            await asyncio.sleep(0.01)
    answering.cancel()


async def test_a_process_that_stands_still_for_a_moment_is_none_that_is_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "SILENCE_S", 60.0)
    answering = asyncio.create_task(machine.answer())
    stream = await machine.link.open(Operation.STAT, Fields())
    machine.stopped_process = HostProcess.FILES
    await asyncio.sleep(0.3)
    machine.stopped_process = None
    await machine.peer.send(Frame(FrameType.CLOSE, stream.id, Status.OK))

    assert (await stream.finish()).status is Status.OK
    assert machine.link.is_responsive
    answering.cancel()


async def test_a_crowd_is_no_excuse_for_a_stopped_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "BUSY_SILENCE_S", 10 * PROMPT_S)
    monkeypatch.setattr(pulse, "is_crowded", lambda: True)
    machine.stopped_process = HostProcess.KERNEL

    await fails((await machine.link.open(Operation.STAT, Fields())).read())


async def test_calls_upon_calls_do_not_put_off_the_question(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "IDLE_S", 10 * PROMPT_S)

    async def call() -> None:
        while True:
            await machine.link.open(Operation.STAT, Fields())
            await asyncio.sleep(pulse.CALL_S / 2)

    await fails(call())


async def test_a_server_that_stood_still_itself_blames_nobody(machine: Machine) -> None:
    stream = await machine.link.open(Operation.EXEC, Fields())
    assert FrameType.OPEN is (await machine.peer.next()).type
    assert FrameType.PING is (await machine.peer.next()).type
    time.sleep(1)  # everything stands still  # noqa: ASYNC251
    await machine.peer.send(Frame(FrameType.PONG, payload=bytes(8)))
    await machine.peer.send(Frame(FrameType.CLOSE, stream.id, Status.OK))

    assert (await stream.finish()).status is Status.OK


async def test_a_server_that_is_always_late_notices_too(machine: Machine) -> None:
    async def delay() -> None:
        while True:
            time.sleep(3 * pulse.STEP_S)  # noqa: ASYNC251
            await asyncio.sleep(0)

    delaying = asyncio.create_task(delay())
    stream = await machine.link.open(Operation.EXEC, Fields())

    await fails(stream.read())

    delaying.cancel()


async def test_silence_is_expected_while_a_machine_is_paused(machine: Machine) -> None:
    stream = await machine.link.open(Operation.EXEC, Fields())
    with machine.link.clock.held(), pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await stream.read()
    assert machine.link.is_responsive

    await fails(stream.read())


async def test_a_sender_that_waits_for_room_is_told(machine: Machine) -> None:
    async def upload() -> None:
        while True:
            stream = await machine.link.open(Operation.WRITE_FILE, Fields())
            await stream.send(bytes(2 * DATA_LIMIT))

    await fails(upload())


async def test_a_sender_that_gives_up_leaves_the_link_whole(machine: Machine) -> None:
    machine.share_of_cpu = 0.9
    streams = [await machine.link.open(Operation.WRITE_FILE, Fields()) for _ in range(16)]
    sending = [asyncio.create_task(each.send(bytes(3 * DATA_LIMIT))) for each in streams]
    await asyncio.sleep(0.05)
    for each in sending:
        each.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    asking = asyncio.create_task(machine.link.send(Frame(FrameType.PING, payload=b"lastping")))

    async with asyncio.timeout(PROMPT_S):
        while (await machine.peer.next()).payload != b"lastping":
            pass
        await asking


async def test_one_that_waits_for_programs_inside_outlives_the_silence(machine: Machine) -> None:
    waiting = await machine.link.open(Operation.ACCEPT, Fields())
    stream = await machine.link.open(Operation.EXEC, Fields())
    await fails(stream.read())

    await machine.peer.send(Frame(FrameType.DATA, waiting.id, Channel.ERROR, b"\0"))

    async with asyncio.timeout(PROMPT_S):
        assert (Channel.ERROR, b"\0") == await waiting.read()


async def test_a_freeze_of_a_silent_agent_is_told(machine: Machine) -> None:
    async def freeze() -> None:
        async with machine.link.frozen(PROMPT_S):
            pytest.fail("held still without an answer")

    await fails(freeze())

    assert FrameType.FREEZE is (await machine.peer.next()).type
    assert FrameType.THAW is (await machine.peer.next()).type


async def test_closing_a_link_to_a_silent_agent_takes_no_time(machine: Machine) -> None:
    stream = await machine.link.open(Operation.EXEC, Fields())
    await fails(stream.read())

    async with asyncio.timeout(1.0):
        await machine.link.close()
    with pytest.raises(LinkLostError):
        await machine.link.open(Operation.STAT, Fields())


# Deadlines


async def test_a_deadline_that_the_agent_lets_pass_is_kept_by_the_server(machine: Machine) -> None:
    answering = asyncio.create_task(machine.answer())
    stream = await machine.link.open(Operation.EXEC, Fields())
    stream.limit(Deadline(stream.clock, 0.2, 0.1))

    with pytest.raises(OverdueError):
        async with asyncio.timeout(PROMPT_S):
            await stream.read()
    async with asyncio.timeout(1.0):
        await machine.link.end_stream(stream)

    assert machine.link.is_responsive
    answering.cancel()


async def test_a_trickle_past_the_deadline_is_no_way_around_it() -> None:
    clock, event = Stopwatch(), asyncio.Event()
    deadline = Deadline(clock, 0.05, 0.2)

    async def trickle() -> None:
        while True:
            event.clear()
            asyncio.get_running_loop().call_later(0.03, event.set)
            await deadline.wait(event)

    with pytest.raises(OverdueError):
        await asyncio.wait_for(trickle(), PROMPT_S)


async def test_time_in_which_nobody_waits_for_the_agent_is_the_reader_s() -> None:
    event = asyncio.Event()
    deadline = Deadline(Stopwatch(), 0.02, 0.1)
    event.set()
    for _ in range(5):
        await asyncio.sleep(0.05)
        await deadline.wait(event)


async def test_a_deadline_stands_still_with_the_machine(machine: Machine) -> None:
    answering = asyncio.create_task(machine.answer())
    stream = await machine.link.open(Operation.EXEC, Fields())
    stream.limit(Deadline(stream.clock, 0.2, 0.1))
    reading = asyncio.create_task(stream.read())
    with machine.link.clock.held():
        await asyncio.sleep(0.8)
        assert not reading.done()

    with pytest.raises(OverdueError):
        await asyncio.wait_for(reading, PROMPT_S)
    answering.cancel()
