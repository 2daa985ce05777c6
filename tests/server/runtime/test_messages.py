"""Kernel events as messages. They come from the guest: anything may be in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.server.runtime.messages import code_messages
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.link import KernelEvent, KernelEventKind


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
