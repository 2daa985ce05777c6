"""Decoding of published spellings, and of JSON made to hurt."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.server.codec import MAX_DEPTH, LenientJsonCodec
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb

HOSTILE_DEPTH = 200_000
BRACKETS = ["[", '{"a":', '[{"a":', '{"a":[']
PLACES = ["%s", '{"open":%s', '{"open":{"env":[%s', '{"stdin":%s', '{"unknown":%s']


def decode(text: str | bytes) -> pb.ExecRequest:
    data = text.encode() if isinstance(text, str) else text
    request = LenientJsonCodec().decode(data, pb.ExecRequest)
    assert isinstance(request, pb.ExecRequest)
    return request


def code_of(request: pb.ExecRequest) -> str:
    assert request.msg is not None
    assert isinstance(request.msg.value, pb.ExecOpen)
    return request.msg.value.command


@pytest.mark.parametrize("bracket", BRACKETS)
@pytest.mark.parametrize("place", PLACES)
def test_deep_nesting_is_refused_before_the_native_decoder_sees_it(
    bracket: str, place: str
) -> None:
    """It ends the whole process otherwise."""
    with pytest.raises(ValueError, match="deep"):
        decode(place % (bracket * HOSTILE_DEPTH))


def test_an_escaped_quote_does_not_hide_brackets() -> None:
    with pytest.raises(ValueError, match="deep"):
        decode('{"a":"\\\\","b":' + "[" * HOSTILE_DEPTH)


def test_brackets_in_text_do_not_count() -> None:
    command = "[{(\\\"'" * 10_000

    assert command == code_of(decode(json.dumps({"open": {"command": command}})))


def test_many_shallow_objects_are_fine() -> None:
    env = [{"key": f"K{number}", "value": "{"} for number in range(10 * MAX_DEPTH)]

    request = decode(json.dumps({"open": {"command": "true", "env": env}}))

    assert request.msg is not None
    assert isinstance(request.msg.value, pb.ExecOpen)
    assert len(env) == len(request.msg.value.env)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()

    assert text == code_of(decode(json.dumps({"open": {"command": text}})))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    for hostile in (data, b'{"open":' + data):
        with contextlib.suppress(TypeError, ValueError):
            LenientJsonCodec().decode(hostile, pb.ExecRequest)
