"""The SDK's decoder of what a server sends."""

from __future__ import annotations

from collections.abc import Iterator

from mitos._sdk import framing
from tests.fuzz.decoders.base import Target, halves, outcome

__all__ = ["TARGETS"]


def answers(data: bytes) -> None:
    """Frames of an answer, however they are cut; and what they carry as base64."""
    outcomes = []
    for parts in ((data,), halves(data)):
        reader = framing.FrameReader()
        outcomes.append((outcome(reader.feed, parts), reader.ended, reader.error))
    assert outcomes[0] == outcomes[1]
    try:
        framing.decode_bytes(data.decode("utf-8", "replace"))
    except ValueError:
        return


def _answers() -> Iterator[bytes]:
    message = framing.encode_frame({"stdout": framing.encode_bytes(b"abc")})
    yield message + framing.encode_frame({}, framing.END_STREAM)
    yield framing.encode_frame({"error": {"code": "not_found"}}, framing.END_STREAM)


TARGETS = {"framing": Target(answers, (framing,), _answers)}
