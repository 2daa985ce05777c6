"""Frames: whole at every split, and never anything but messages or a typed error."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mitos
from mitos._sdk.framing import (
    END_STREAM,
    FrameReader,
    decode_bytes,
    encode_bytes,
    encode_frame,
)

MESSAGES: list[dict[str, Any]] = [{"stdout": "aGk="}, {"text": "é\u2028"}, {"exitCode": 0}]
STREAM = b"".join(encode_frame(message) for message in MESSAGES)
ERROR = {"code": "internal", "message": "m"}


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_stream_is_whole_at_every_split(at: int) -> None:
    reader = FrameReader()

    found = [*reader.feed(STREAM[:at]), *reader.feed(STREAM[at:])]

    assert MESSAGES == found
    assert not reader.ended


def test_a_frame_is_a_byte_of_flags_and_a_length() -> None:
    assert b'\x00\x00\x00\x00\x07{"a":1}' == encode_frame({"a": 1})
    assert b"\x02\x00\x00\x00\x02{}" == encode_frame({}, END_STREAM)


def test_the_end_carries_the_error() -> None:
    reader = FrameReader()

    assert [] == list(reader.feed(encode_frame({"error": ERROR}, END_STREAM) + b"junk"))

    assert reader.ended
    assert ERROR == reader.error
    assert [] == list(reader.feed(STREAM))


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_give_messages_or_a_typed_error(chunks: list[bytes]) -> None:
    reader = FrameReader()

    with contextlib.suppress(mitos.AgentRunError):  # anything else fails the test
        for chunk in chunks:
            for message in reader.feed(chunk):
                assert isinstance(message, dict)


@given(st.binary(max_size=200))
def test_bytes_survive_every_base64_a_server_may_write(data: bytes) -> None:
    url_safe = base64.urlsafe_b64encode(data).decode()

    for text in (encode_bytes(data), url_safe, url_safe.rstrip("=")):
        assert data == decode_bytes(text)
