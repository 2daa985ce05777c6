"""A link that an earlier server had, taken over from a peer in the middle of a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mitos.agent import pulse as pulse_module
from mitos.agent import takeover as takeover_module
from mitos.agent.link import Link
from mitos.agent.stream import LinkLostError, UnresponsiveError
from mitos.engine.fake.pipe import PipeEnd, pipe
from mitos.wire.link import NONCE_SIZE, VERSION, Fields, Frame, FrameType, Operation, Tag

TOKEN = "5ecret"
HELLO = Frame(
    FrameType.HELLO,
    payload=Fields().uint(Tag.VERSION, VERSION).text(Tag.SANDBOX_ID, "box").encode(),
)


@pytest.fixture
async def taken() -> AsyncIterator[tuple[Link, PipeEnd]]:
    ours, theirs = pipe()
    link = Link(ours, token=TOKEN)
    link.take_over()
    yield link, theirs
    await link.close()


async def nonce_of(agent: PipeEnd) -> bytes:
    word = await agent.read()
    assert word.startswith(TOKEN.encode())
    assert len(word) == len(TOKEN) + NONCE_SIZE
    return word[len(TOKEN) :]


@pytest.mark.parametrize("pieces", [1, 7, NONCE_SIZE, 1 << 16])
async def test_frames_begin_behind_the_nonce(taken: tuple[Link, PipeEnd], pieces: int) -> None:
    link, agent = taken
    nonce = await nonce_of(agent)
    said = b"\xff" * 1000 + nonce[:9] + nonce + HELLO.encode()
    for at in range(0, len(said), pieces):
        await agent.write(said[at : at + pieces])

    assert "box" == (await link.hello()).get_text(Tag.SANDBOX_ID)
    opened = await link.open(Operation.STAT, Fields())
    assert opened.id == 1


async def test_the_first_word_waits_until_all_before_was_read() -> None:
    ours, theirs = pipe()
    await ours.write(b"half a frame of an earlier server")
    link = Link(ours, token=TOKEN)
    link.take_over()
    await asyncio.sleep(0.05)

    assert b"half a frame of an earlier server" == await theirs.read()
    await nonce_of(theirs)
    await link.close()


async def test_calls_wait_for_the_answer(taken: tuple[Link, PipeEnd]) -> None:
    link, agent = taken
    nonce = await nonce_of(agent)
    opening = asyncio.create_task(link.open(Operation.STAT, Fields()))
    await asyncio.sleep(0.05)
    assert not opening.done()

    await agent.write(nonce + HELLO.encode())

    assert (await opening).id == 1


async def test_an_agent_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse_module, "CALL_S", 0.05)
    monkeypatch.setattr(pulse_module, "SILENCE_S", 0.05)
    monkeypatch.setattr(pulse_module, "BUSY_SILENCE_S", 0.05)
    ours, theirs = pipe()
    link = Link(ours, token=TOKEN)
    link.take_over()
    nonce = await nonce_of(theirs)

    with pytest.raises(UnresponsiveError):
        await link.open(Operation.STAT, Fields())
    await theirs.write(nonce + HELLO.encode())

    assert "box" == (await link.hello()).get_text(Tag.SANDBOX_ID)
    assert (await link.open(Operation.STAT, Fields())).id == 1
    await link.close()


async def test_an_agent_of_another_version_is_refused(taken: tuple[Link, PipeEnd]) -> None:
    link, agent = taken
    nonce = await nonce_of(agent)
    other = Frame(FrameType.HELLO, payload=Fields().uint(Tag.VERSION, VERSION + 1).encode())
    await agent.write(nonce + other.encode())

    with pytest.raises(LinkLostError):
        await link.hello()


async def test_a_machine_that_ends_before_it_answers_is_lost(taken: tuple[Link, PipeEnd]) -> None:
    link, agent = taken
    await agent.close()

    with pytest.raises(LinkLostError):
        await link.open(Operation.STAT, Fields())


async def test_a_guest_that_says_anything_but_the_answer_is_given_up(
    taken: tuple[Link, PipeEnd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover_module, "MOST_BYTES", 1 << 16)
    link, agent = taken
    await nonce_of(agent)
    await agent.write(b"\xff" * (1 << 16))
    await agent.write(b"\xff")

    with pytest.raises(LinkLostError, match="broke the link protocol"):
        await link.hello()
    assert link.lost_error is not None
    assert link.lost_error.is_violated
