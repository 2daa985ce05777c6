"""Kernel events as messages. They come from the guest: anything may be in them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.agent.command import Command
from mitos.agent.link import Link
from mitos.engine.fake.pipe import pipe
from mitos.server.runtime import messages
from mitos.server.runtime.messages import OPENED, code_messages, exec_messages
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.link import (
    Channel,
    Fields,
    Frame,
    FrameType,
    KernelEvent,
    KernelEventKind,
    Operation,
    Status,
    Tag,
)
from tests.agent.peer import Peer


def messages_of(kind: KernelEventKind, payload: bytes) -> list[pb.RunCodeResponse]:
    return list(code_messages(KernelEvent(kind, payload)))


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"5", b"\xff", b'{"text": 5, "data": []}', b"[" * 100_000]
)
def test_an_odd_event_is_one_message_still(payload: bytes) -> None:
    for kind in (KernelEventKind.RESULT, KernelEventKind.ERROR):
        (message,) = messages_of(kind, payload)
        assert message.to_binary()


@given(st.sampled_from(list(KernelEventKind)), st.binary(max_size=100))
def test_any_event_can_be_encoded(kind: KernelEventKind, payload: bytes) -> None:
    for message in messages_of(kind, payload):
        assert message.to_binary()


def test_lone_surrogates_do_not_break_a_message() -> None:
    payload = b'{"text": "a\\ud800b", "data": {"text/plain": "\\udfff"}}'

    (message,) = messages_of(KernelEventKind.RESULT, payload)

    assert "a?b" == message.msg.value.text  # type: ignore[union-attr]


def test_long_output_is_cut_into_pieces_of_32_kib() -> None:
    messages = messages_of(KernelEventKind.STDOUT, b"x" * 70_000)

    assert [32768, 32768, 4464] == [len(m.msg.value) for m in messages if m.msg]  # type: ignore[arg-type]


async def test_a_client_hears_of_a_command_that_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "BEAT_S", 0.02)
    ours, theirs = pipe()
    link, peer = Link(ours), Peer(theirs)
    stream = await link.open(Operation.EXEC, Fields())
    answers = exec_messages(Command(stream, ""))
    async with asyncio.timeout(10):
        with link.clock.held():
            for _ in range(3):
                assert OPENED == await anext(answers)
        waiting = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "while it runs, only what it says is told"
        closing = Fields().uint(Tag.EXIT_CODE, 3).encode()
        await peer.send(
            Frame(FrameType.DATA, stream.id, Channel.OUTPUT, b"said"),
            Frame(FrameType.CLOSE, stream.id, Status.OK, closing),
        )
        said, ended = await waiting, await anext(answers)
    assert said.msg is not None
    assert ended.msg is not None
    assert (said.msg.value, ended.msg.field) == (b"said", "exit")
    await link.close()
    await theirs.close()
