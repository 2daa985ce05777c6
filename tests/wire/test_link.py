"""The guest link's codec, in Python and in C: golden vectors, every split, and hostile bytes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitos.wire.link import (
    DATA_LIMIT,
    HEADER_SIZE,
    PAYLOAD_LIMIT,
    Fields,
    Frame,
    FrameDecoder,
    FrameType,
    KernelEvent,
    KernelEventDecoder,
    KernelEventKind,
    LinkError,
    Tag,
    decode_entries,
)

ROOT = Path(__file__).parent.parent.parent
VECTORS: dict[str, Any] = json.loads((ROOT / "spec" / "vectors" / "guest-link.json").read_text())


def vectors(*groups: str) -> pytest.MarkDecorator:
    cases = [vector for group in groups for vector in VECTORS[group]]
    return pytest.mark.parametrize("vector", cases, ids=[case["name"] for case in cases])


def frames_of(vector: dict[str, Any]) -> list[Frame]:
    return [
        Frame(FrameType[f["type"]], f["stream"], f["channel"], bytes.fromhex(f["payload"]))
        for f in vector["frames"]
    ]


def split_everywhere(data: bytes) -> list[tuple[bytes, ...]]:
    """The data cut in two at every place, and into single bytes."""
    cuts: list[tuple[bytes, ...]] = [(data[:at], data[at:]) for at in range(len(data) + 1)]
    return [*cuts, tuple(data[at : at + 1] for at in range(len(data)))]


def decode_all(parts: Iterable[bytes]) -> tuple[list[Frame], bool]:
    """The frames, and whether the decoder refused what came after them."""
    decoder, frames = FrameDecoder(), []
    try:
        for part in parts:
            frames.extend(decoder.feed(part))
    except LinkError:
        return frames, True
    return frames, False


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """A vector with a few bytes changed: much closer to what a decoder accepts than noise."""
    groups = [*VECTORS["frames"], *VECTORS["cut_frames"], *VECTORS["invalid_frames"]]
    data = bytearray.fromhex(draw(st.sampled_from(groups))["bytes"])
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


hostile = st.one_of(st.binary(max_size=60), nearly_frames())


# ---- Python ----


@vectors("frames")
def test_frames_encode_to_their_bytes(vector: dict[str, Any]) -> None:
    assert vector["bytes"] == b"".join(frame.encode() for frame in frames_of(vector)).hex()


@vectors("frames", "cut_frames")
def test_frames_decode_however_they_are_split(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])

    for parts in split_everywhere(data):
        decoder = FrameDecoder()
        assert frames_of(vector) == [frame for part in parts for frame in decoder.feed(part)]
        assert decoder.at_boundary == (vector.get("left", 0) == 0)


@vectors("invalid_frames")
def test_invalid_frames_are_refused_however_they_are_split(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])

    for parts in split_everywhere(data):
        assert decode_all(parts) == (frames_of(vector), True)


@vectors("fields")
def test_fields_decode_and_encode(vector: dict[str, Any]) -> None:
    fields = Fields.decode(bytes.fromhex(vector["bytes"]))

    assert vector["fields"] == [[tag, value.hex()] for tag, value in fields.items]
    assert vector["bytes"] == fields.encode().hex()


@vectors("invalid_fields")
def test_invalid_fields_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(LinkError):
        Fields.decode(bytes.fromhex(vector["bytes"]))


@vectors("entries")
def test_listings_decode(vector: dict[str, Any]) -> None:
    entries = decode_entries(bytes.fromhex(vector["bytes"]))

    assert vector["entries"] == [entry.encode().hex() for entry in entries]


@vectors("invalid_entries")
def test_invalid_listings_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(LinkError):
        list(decode_entries(bytes.fromhex(vector["bytes"])))


@vectors("kernel_events")
def test_kernel_events_decode_however_they_are_split(vector: dict[str, Any]) -> None:
    expected = [KernelEvent(KernelEventKind[k], bytes.fromhex(p)) for k, p in vector["events"]]

    for parts in split_everywhere(bytes.fromhex(vector["bytes"])):
        decoder = KernelEventDecoder()
        assert expected == [event for part in parts for event in decoder.feed(part)]


@vectors("invalid_kernel_events")
def test_invalid_kernel_events_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(LinkError):
        list(KernelEventDecoder().feed(bytes.fromhex(vector["bytes"])))


def test_every_frame_type_has_a_vector() -> None:
    seen = {frame["type"] for vector in VECTORS["frames"] for frame in vector["frames"]}

    assert {frame_type.name for frame_type in FrameType} == seen


def test_the_largest_frames_go_through() -> None:
    data = Frame(FrameType.DATA, 1, 1, bytes(DATA_LIMIT))
    opening = Frame(FrameType.OPEN, 1, 2, bytes(PAYLOAD_LIMIT))

    assert [data, opening] == list(FrameDecoder().feed(data.encode() + opening.encode()))


def test_a_payload_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="over"):
        Frame(FrameType.OPEN, 1, 2, bytes(PAYLOAD_LIMIT + 1)).encode()


def test_the_last_value_of_a_field_counts() -> None:
    fields = Fields().uint(Tag.SIZE, 1).uint(Tag.SIZE, 2)

    assert fields.get_uint(Tag.SIZE) == 2
    assert fields.get_uint(Tag.MODE, 7) == 7


def test_an_integer_field_of_another_length_is_refused() -> None:
    with pytest.raises(LinkError, match="SIZE"):
        Fields().raw(Tag.SIZE, b"\1").get_uint(Tag.SIZE)


@settings(max_examples=300, deadline=None)
@given(st.lists(hostile, max_size=8))
def test_hostile_bytes_give_frames_or_a_link_error(parts: list[bytes]) -> None:
    assert decode_all([b"".join(parts)]) == decode_all(parts)


@given(st.binary(max_size=200))
def test_hostile_fields_give_fields_or_a_link_error(data: bytes) -> None:
    try:
        fields = Fields.decode(data)
    except LinkError:
        return
    assert data == fields.encode()


# ---- C ----


@pytest.fixture(scope="module")
def codec() -> Path:
    """The C codec in a small program, built with sanitizers."""
    subprocess.run([ROOT / "scripts" / "build-agent", "--tests"], check=True, timeout=120)
    return ROOT / "build" / "guest" / "link_vectors"


def run_codec(codec: Path, data: list[str], *arguments: str) -> list[str]:
    result = subprocess.run(
        [codec, *arguments],
        input="".join(f"{line}\n" for line in data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def frame_lines(vector: dict[str, Any]) -> list[str]:
    return [
        f"frame {f['stream']} {FrameType[f['type']]:d} {f['channel']} {f['payload'] or '-'}"
        for f in vector["frames"]
    ]


def as_vector(frame: Frame) -> dict[str, Any]:
    shown = {"type": frame.type.name, "stream": frame.stream, "channel": frame.channel}
    return {**shown, "payload": frame.payload.hex()}


@vectors("frames", "cut_frames")
def test_c_decodes_frames(codec: Path, vector: dict[str, Any]) -> None:
    left = vector.get("left", 0)

    expected = [*frame_lines(vector), f"more {left}" if left else "end"]
    assert expected == run_codec(codec, [vector["bytes"]])


@vectors("frames")
def test_c_waits_for_the_rest_of_a_frame(codec: Path, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    last = len(frames_of(vector)[-1].encode())
    cuts = range(len(data) - last + 1, len(data))

    lines = run_codec(codec, [data[:cut].hex() for cut in cuts])
    ends = [line for line in lines if not line.startswith("frame")]
    assert [f"more {cut - len(data) + last}" for cut in cuts] == ends


@vectors("invalid_frames")
def test_c_refuses_invalid_frames(codec: Path, vector: dict[str, Any]) -> None:
    lines = run_codec(codec, [vector["bytes"]])

    assert frame_lines(vector) == lines[:-1]
    assert lines[-1].startswith("violation ")


@vectors("fields")
def test_c_decodes_fields(codec: Path, vector: dict[str, Any]) -> None:
    expected = [f"field {tag} {value or '-'}" for tag, value in vector["fields"]]

    assert [*expected, "end"] == run_codec(codec, [vector["bytes"]], "fields")


@vectors("invalid_fields")
def test_c_refuses_invalid_fields(codec: Path, vector: dict[str, Any]) -> None:
    assert run_codec(codec, [vector["bytes"]], "fields")[-1].startswith("violation ")


@settings(max_examples=60, deadline=None)
@given(st.lists(hostile, min_size=1, max_size=20))
def test_c_and_python_agree_on_hostile_bytes(codec: Path, inputs: list[bytes]) -> None:
    inputs = [data for data in inputs if data] or [b"\0" * HEADER_SIZE]
    expected = []
    for data in inputs:
        decoder = FrameDecoder()
        try:
            for frame in decoder.feed(data):
                expected += frame_lines({"frames": [as_vector(frame)]})
            expected.append("end" if decoder.at_boundary else "more")
        except LinkError:
            expected.append("violation")

    lines = run_codec(codec, [data.hex() for data in inputs])
    assert expected == [line if line.startswith("frame") else line.split()[0] for line in lines]
