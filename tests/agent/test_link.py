"""The link against a peer that follows the document, and peers that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mitos.agent import client as client_module
from mitos.agent import link as link_module
from mitos.agent.client import AgentClient
from mitos.agent.link import Link
from mitos.agent.stream import LinkLostError
from mitos.engine.fake.pipe import pipe
from mitos.wire.errors import ApiError
from mitos.wire.link import (
    INITIAL_CREDIT,
    VERSION,
    Channel,
    Fields,
    Frame,
    FrameType,
    Operation,
    Status,
    Tag,
)
from tests.agent.peer import Peer
from tests.host.eventually import until


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Link, Peer]]:
    ours, theirs = pipe()
    link = Link(ours)
    yield link, Peer(theirs)
    await link.close()


async def test_data_is_returned_in_order_until_the_close(ends: tuple[Link, Peer]) -> None:
    link, peer = ends
    stream = await link.open(Operation.STAT, Fields())
    opened = await peer.next()
    await peer.send(
        Frame(FrameType.DATA, opened.stream, Channel.OUTPUT, b"one"),
        Frame(FrameType.DATA, opened.stream, Channel.ERROR, b"two"),
        Frame(FrameType.CLOSE, opened.stream, Status.OK, Fields().uint(Tag.SIZE, 6).encode()),
    )

    assert (Channel.OUTPUT, b"one") == await stream.read()
    assert (Channel.ERROR, b"two") == await stream.read()
    assert await stream.read() is None
    assert 6 == (await stream.finish()).fields.get_uint(Tag.SIZE)


async def test_input_waits_for_credit(ends: tuple[Link, Peer]) -> None:
    link, peer = ends
    stream = await link.open(Operation.WRITE_FILE, Fields())
    opened = await peer.next()
    sending = asyncio.create_task(stream.send(b"x" * (INITIAL_CREDIT + 1)))
    received = 0
    while received < INITIAL_CREDIT:
        received += len((await peer.next()).payload)

    await asyncio.sleep(0.05)
    assert not sending.done()
    await peer.send(Frame(FrameType.CREDIT, opened.stream, 0, (10).to_bytes(4, "big")))

    assert await sending
    assert b"x" == (await peer.next()).payload


async def test_a_slow_reader_gets_no_more_than_its_credit_and_returns_it_as_it_reads(
    ends: tuple[Link, Peer],
) -> None:
    link, peer = ends
    stream = await link.open(Operation.READ_FILE, Fields())
    opened = await peer.next()
    piece = b"x" * 65_536
    for _ in range(INITIAL_CREDIT // len(piece)):
        await peer.send(Frame(FrameType.DATA, opened.stream, Channel.OUTPUT, piece))

    await stream.read()
    credit = await peer.next()

    assert (FrameType.CREDIT, len(piece)) == (credit.type, int.from_bytes(credit.payload, "big"))


async def test_leaving_a_stream_cancels_it(ends: tuple[Link, Peer]) -> None:
    link, peer = ends

    async def agent() -> list[FrameType]:
        opened, canceled = await peer.next(), await peer.next()
        await peer.send(Frame(FrameType.CLOSE, opened.stream, Status.CANCELED))
        return [opened.type, canceled.type]

    answering = asyncio.create_task(agent())
    async with await link.open(Operation.EXEC, Fields()):
        pass

    assert [FrameType.OPEN, FrameType.CANCEL] == await answering


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 32,
        Frame(FrameType.DATA, 1, Channel.OUTPUT, b"x").encode()[:-1] + b"\0" * 64,
        Frame(FrameType.HELLO, 0, 0, b"\x01\xff\xff\xff\xff").encode(),
        Frame(FrameType.OPEN, 0, 1).encode(),
        Frame(FrameType.CLOSE, 1, 99).encode(),
        Frame(FrameType.DATA, 1, 7, b"x").encode(),
        b"".join(
            Frame(FrameType.DATA, 1, Channel.OUTPUT, b"x" * 65_536).encode() for _ in range(5)
        ),
    ],
    ids=["noise", "torn", "field", "open-on-0", "status", "channel", "over-credit"],
)
async def test_what_the_document_forbids_ends_the_link(
    ends: tuple[Link, Peer], sent: bytes
) -> None:
    link, peer = ends
    stream = await link.open(Operation.STAT, Fields())
    await peer.next()

    await peer.send_bytes(sent)

    with pytest.raises(LinkLostError):
        async with asyncio.timeout(5):
            await stream.finish()
    assert link.lost.is_set()
    with pytest.raises(LinkLostError):
        await link.open(Operation.STAT, Fields())


async def test_the_end_of_the_machine_fails_what_is_open(ends: tuple[Link, Peer]) -> None:
    link, peer = ends
    stream = await link.open(Operation.STAT, Fields())

    await peer.end()

    with pytest.raises(LinkLostError):
        await stream.read()


async def test_nothing_is_sent_while_the_link_is_held_still(ends: tuple[Link, Peer]) -> None:
    link, peer = ends

    async def hold() -> None:
        async with link.frozen(5):
            held.set()
            await release.wait()

    held, release = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold())
    freeze = await peer.next()
    await peer.send(Frame(FrameType.FROZEN, payload=freeze.payload))
    await held.wait()
    opening = asyncio.create_task(link.open(Operation.STAT, Fields()))
    reading = asyncio.create_task(peer.next())
    await asyncio.sleep(0.05)

    assert not reading.done()
    release.set()
    assert FrameType.THAW is (await reading).type
    assert FrameType.OPEN is (await peer.next()).type
    await holding
    await opening


async def test_an_agent_that_does_not_hold_still_in_time_is_thawed(
    ends: tuple[Link, Peer],
) -> None:
    link, peer = ends

    with pytest.raises(TimeoutError):
        async with link.frozen(0.05):
            pytest.fail("held still without an answer")

    assert FrameType.FREEZE is (await peer.next()).type
    assert FrameType.THAW is (await peer.next()).type
    assert not link.lost.is_set()


async def test_an_agent_of_another_version_is_refused(ends: tuple[Link, Peer]) -> None:
    link, peer = ends
    hello = Fields().uint(Tag.VERSION, VERSION + 1).encode()
    await peer.send(Frame(FrameType.HELLO, payload=hello))

    with pytest.raises(LinkLostError, match="version"):
        await link.hello()


async def test_what_comes_of_streams_that_were_left_is_not_kept(
    ends: tuple[Link, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent may take no notice of a cancel."""
    monkeypatch.setattr(link_module, "CANCEL_DEADLINE_S", 0.01)
    link, peer = ends
    stream = await link.open(Operation.READ_FILE, Fields())
    opened = await peer.next()
    piece = Frame(FrameType.DATA, opened.stream, Channel.OUTPUT, b"x" * 1000)
    await peer.send(piece)
    assert await stream.ready(5)

    await link.end_stream(stream)
    await peer.send(piece, piece)
    await until(lambda: stream._receive_credit == INITIAL_CREDIT - 3000)

    assert not stream._chunks
    assert not link.lost.is_set()


async def test_an_agent_that_never_ends_streams_is_given_up(
    ends: tuple[Link, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CANCEL_DEADLINE_S", 0.01)
    monkeypatch.setattr(link_module, "MAX_LEFT", 5)
    link, _peer = ends
    for _ in range(5):
        await link.end_stream(await link.open(Operation.READ_FILE, Fields()))
    assert not link.lost.is_set()

    await link.end_stream(await link.open(Operation.READ_FILE, Fields()))

    assert link.lost_error is not None
    assert link.lost_error.is_violated


@pytest.mark.parametrize(
    "call",
    [
        lambda agent: anext(agent.read_file("/f")),
        lambda agent: anext(agent.watch("/d", recursive=False)),
        lambda agent: agent.list_directory("/d"),
    ],
    ids=["read", "watch", "list"],
)
async def test_an_agent_that_ends_its_output_and_not_its_stream_holds_up_nobody_for_ever(
    ends: tuple[Link, Peer],
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[AgentClient], Awaitable[object]],
) -> None:
    monkeypatch.setattr(client_module, "TRANSFER_DEADLINE_S", 0.1)
    monkeypatch.setattr(link_module, "CANCEL_DEADLINE_S", 0.01)
    link, peer = ends

    async def lost() -> ApiError:
        raise AssertionError("it is there")

    calling = asyncio.ensure_future(call(AgentClient(link, lost)))
    opened = await peer.next()
    await peer.send(Frame(FrameType.EOF, opened.stream, Channel.OUTPUT))

    with pytest.raises(ApiError) as caught:
        async with asyncio.timeout(10):
            await calling
    assert "exec_timeout" == caught.value.code
