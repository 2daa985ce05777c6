"""The fake agent keeps to `spec/guest-link.md`, and ends when the server does not."""

from __future__ import annotations

import asyncio
import os

import pytest

from mitos.engine.base import Machine, MachineEnd
from mitos.wire.link import (
    INITIAL_CREDIT,
    Channel,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    Operation,
    Status,
    Tag,
)
from tests.engine.fake.conftest import Bench, Sandbox

NONCE = bytes(range(8))
SLEEP = Fields().texts(Tag.ARG, ["sleep", "60"])


class Server:
    """Frames by hand."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def send(self, *frames: Frame) -> None:
        await self.machine.link.write(b"".join(frame.encode() for frame in frames))

    async def next(self) -> Frame:
        while not self._frames:
            async with asyncio.timeout(3):
                data = await self.machine.link.read()
            assert data, "the agent ended"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def silent(self) -> bool:
        """True when nothing comes for a moment."""
        try:
            async with asyncio.timeout(0.1):
                while not self._frames:
                    self._frames += self._decoder.feed(await self.machine.link.read())
        except TimeoutError:
            return True
        return False

    async def ended(self) -> MachineEnd:
        return await asyncio.wait_for(self.machine.wait_end(), 3)


def opening(stream: int, operation: int, fields: Fields | None = None) -> Frame:
    return Frame(FrameType.OPEN, stream, operation, (fields or Fields()).encode())


def identity(*, forked: bool = True, generation: bytes = bytes(16)) -> Fields:
    fields = Fields().raw(Tag.GENERATION, generation).raw(Tag.ENTROPY, os.urandom(32))
    fields.text(Tag.HOSTNAME, "name").text(Tag.MACHINE_ID, "ab" * 16)
    return fields.uint(Tag.FORKED, int(forked)).text(Tag.ENV, "GIVEN=1")


@pytest.fixture
async def server(bench: Bench) -> Server:
    found = Server(await bench.engine.boot(bench.spec))
    assert FrameType.HELLO is (await found.next()).type
    return found


async def restored(bench: Bench) -> Server:
    snapshot = await bench.checkpoint(await bench.boot())
    blank = await bench.engine.prepare(bench.spec)
    return Server(await bench.engine.restore(blank, snapshot))


async def test_a_ping_is_echoed(server: Server) -> None:
    await server.send(Frame(FrameType.PING, payload=NONCE))

    assert Frame(FrameType.PONG, payload=NONCE) == await server.next()


async def test_output_stops_when_the_credit_is_used_up(server: Server) -> None:
    await server.send(opening(1, Operation.READ_FILE, Fields().text(Tag.PATH, "/dev/zero")))
    received = 0
    while received < INITIAL_CREDIT:
        received += len((await server.next()).payload)

    assert received == INITIAL_CREDIT
    assert await server.silent()
    await server.send(Frame(FrameType.CREDIT, 1, 0, (10).to_bytes(4, "big")))
    assert Frame(FrameType.DATA, 1, Channel.OUTPUT, bytes(10)) == await server.next()
    await server.send(Frame(FrameType.CANCEL, 1))
    assert Frame(FrameType.CLOSE, 1, Status.CANCELED) == await server.next()


async def test_a_stream_without_credit_holds_back_no_other(server: Server) -> None:
    await server.send(opening(1, Operation.READ_FILE, Fields().text(Tag.PATH, "/dev/zero")))
    await server.send(opening(3, Operation.MKDIR, Fields().text(Tag.PATH, "d")))

    while (frame := await server.next()).stream == 1:
        pass
    assert Frame(FrameType.CLOSE, 3, Status.OK) == frame


async def test_input_credit_comes_back_only_as_it_is_read(server: Server) -> None:
    fields = Fields().text(Tag.ARG, "sleep").text(Tag.ARG, "60").uint(Tag.STDIN, 1)
    await server.send(opening(1, Operation.EXEC, fields))
    await server.send(Frame(FrameType.DATA, 1, Channel.INPUT, bytes(1000)))

    assert await server.silent()


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(FrameType.HELLO)],
        [Frame(FrameType.FROZEN, payload=NONCE)],
        [Frame(FrameType.CLOSE, 1)],
        [opening(2, Operation.STAT)],
        [opening(1, Operation.EXEC, SLEEP), opening(1, Operation.STAT)],
        [Frame(FrameType.FREEZE, payload=NONCE), Frame(FrameType.PING, payload=NONCE)],
        [
            opening(1, Operation.EXEC, Fields().text(Tag.ARG, "yes").uint(Tag.STDIN, 1)),
            *[Frame(FrameType.DATA, 1, 0, bytes(65536))] * 5,
        ],
        [
            opening(1, Operation.EXEC, Fields().text(Tag.ARG, "yes").uint(Tag.STDIN, 1)),
            Frame(FrameType.EOF, 1),
            Frame(FrameType.DATA, 1, 0, b"x"),
        ],
        [
            opening(1, Operation.EXEC, Fields().text(Tag.ARG, "yes")),
            Frame(FrameType.DATA, 1, Channel.OUTPUT, b"x"),
        ],
    ],
    ids=lambda frames: " ".join(frame.type.name for frame in frames[:3]),
)
async def test_a_violation_ends_the_agent(server: Server, frames: list[Frame]) -> None:
    await server.send(*frames)

    assert MachineEnd.EXITED is await server.ended()


async def test_frames_for_a_closed_stream_are_ignored(server: Server) -> None:
    await server.send(Frame(FrameType.CANCEL, 9), Frame(FrameType.DATA, 9, 0, b"x"))
    await server.send(Frame(FrameType.PING, payload=NONCE))

    assert FrameType.PONG is (await server.next()).type


@pytest.mark.parametrize(
    ("operation", "fields", "status", "number"),
    [
        (99, Fields(), Status.INVALID, 0),
        (Operation.EXEC, Fields(), Status.INVALID, 0),
        (Operation.STAT, Fields().raw(Tag.PATH, b"a\0b"), Status.INVALID, 0),
        (Operation.MKDIR, Fields().text(Tag.PATH, "d").raw(Tag.MODE, b"xx"), Status.INVALID, 0),
        (Operation.IDENTIFY, Fields(), Status.INVALID, 0),
        (Operation.STAT, Fields().text(Tag.PATH, "nosuch"), Status.FAILED, 2),
        (Operation.STAT, Fields().text(Tag.PATH, "/etc/hostname/x"), Status.FAILED, 20),
        (Operation.STAT, Fields().text(Tag.PATH, "x" * 256), Status.FAILED, 36),
        (Operation.READ_FILE, Fields().text(Tag.PATH, "/tmp"), Status.FAILED, 21),
        (Operation.WRITE_FILE, Fields().text(Tag.PATH, "/tmp"), Status.FAILED, 21),
        (Operation.MKDIR, Fields().text(Tag.PATH, "/etc/hostname"), Status.FAILED, 17),
        (Operation.REMOVE, Fields().text(Tag.PATH, "/").uint(Tag.RECURSIVE, 1), Status.FAILED, 16),
        (Operation.EXEC, Fields().text(Tag.ARG, "nosuch"), Status.FAILED, 2),
        (Operation.EXEC, Fields().text(Tag.ARG, ""), Status.FAILED, 2),
    ],
)
async def test_a_refusal_says_why(
    server: Server, operation: int, fields: Fields, status: Status, number: int
) -> None:
    await server.send(opening(1, operation, fields))

    answer = await server.next()

    assert (FrameType.CLOSE, 1, status) == (answer.type, answer.stream, answer.channel)
    said = Fields.decode(answer.payload)
    assert number == said.get_uint(Tag.ERRNO)
    assert said.get_text(Tag.MESSAGE)


async def test_the_257th_stream_is_refused(server: Server) -> None:
    fields = Fields().text(Tag.ARG, "sleep").text(Tag.ARG, "60")
    await server.send(*(opening(n, Operation.EXEC, fields) for n in range(1, 515, 2)))

    answer = await server.next()

    assert (513, Status.UNAVAILABLE) == (answer.stream, answer.channel)


async def test_a_frozen_agent_sends_nothing_until_it_is_thawed(server: Server) -> None:
    fields = Fields().text(Tag.ARG, "sh").text(Tag.ARG, "-c").text(Tag.ARG, "sleep 0.05; echo x")
    await server.send(opening(1, Operation.EXEC, fields), Frame(FrameType.FREEZE, payload=NONCE))

    assert Frame(FrameType.FROZEN, payload=NONCE) == await server.next()
    assert await server.silent()
    await server.send(Frame(FrameType.THAW))
    assert Frame(FrameType.DATA, 1, Channel.OUTPUT, b"x\n") == await server.next()
    assert FrameType.CLOSE is (await server.next()).type


async def test_a_restored_agent_keeps_silent_until_it_is_identified(bench: Bench) -> None:
    server = await restored(bench)
    assert await server.silent()

    await server.send(opening(1, Operation.IDENTIFY, identity(generation=b"g" * 16)))
    answer = await server.next()

    assert (FrameType.CLOSE, Status.OK) == (answer.type, answer.channel)
    assert b"g" * 16 == Fields.decode(answer.payload).get_raw(Tag.GENERATION)
    assert Fields.decode(answer.payload).get_uint(Tag.WALL_CLOCK)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.PING, payload=NONCE),
        opening(1, Operation.STAT, Fields().text(Tag.PATH, "/")),
        opening(1, Operation.IDENTIFY, identity(forked=False)),
    ],
    ids=["ping", "stat", "identity of no fork"],
)
async def test_a_restored_agent_takes_nothing_but_its_identity(bench: Bench, frame: Frame) -> None:
    server = await restored(bench)

    await server.send(frame)

    assert MachineEnd.EXITED is await server.ended()


async def test_an_identity_is_applied(sandbox: Sandbox) -> None:
    fresh = await sandbox.identify()

    said = await sandbox.out("hostname; cat /etc/machine-id")
    assert f"{sandbox.machine.id}\n{fresh.machine_id}\n" == said


async def test_a_forked_identity_forgets_streams_but_commands_live_on(server: Server) -> None:
    script = "sleep 0.1; echo lost; echo done > /tmp/f"
    fields = Fields().texts(Tag.ARG, ["sh", "-c", script])
    file = Fields().text(Tag.PATH, "half")
    await server.send(opening(1, Operation.EXEC, fields), opening(3, Operation.WRITE_FILE, file))
    await asyncio.sleep(0.02)

    await server.send(opening(5, Operation.IDENTIFY, identity()))
    answer = await server.next()
    await asyncio.sleep(0.2)
    await server.send(opening(1, Operation.READ_FILE, Fields().text(Tag.PATH, "/tmp/f")))

    assert (5, Status.OK) == (answer.stream, answer.channel)
    assert Frame(FrameType.DATA, 1, Channel.OUTPUT, b"done\n") == await server.next()


async def test_closing_the_link_ends_the_agent(server: Server) -> None:
    await server.machine.link.close()

    assert MachineEnd.EXITED is await server.ended()
