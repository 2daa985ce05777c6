"""Reads `google.rpc.ErrorInfo` out of a Connect error: our code, remediation and context.

The message has three fields (reason 1, domain 2, metadata 3 as a map of strings), so its binary
form is read here by hand: the SDK carries no protobuf runtime for it.
`spec/google/rpc/error_info.proto` is the definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mitos._sdk.framing import decode_bytes
from mitos.wire.errors import ERROR_INFO_DOMAIN

__all__ = ["ErrorInfo", "find"]

TYPE = "google.rpc.ErrorInfo"
_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class ErrorInfo:
    """The detail's content."""

    reason: str
    metadata: dict[str, str] = field(default_factory=dict)


def find(details: object) -> ErrorInfo | None:
    """The detail of our domain among a Connect error's; what is odd is as if absent."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("type") == TYPE:
            try:
                return _parse(decode_bytes(str(detail.get("value"))))
            except ValueError:
                return None
    return None


def _parse(data: bytes) -> ErrorInfo | None:
    reason, domain, metadata = "", "", {}
    for number, value in _fields(data):
        if number == 1:
            reason = value.decode()
        elif number == 2:
            domain = value.decode()
        elif number == 3:
            entry = dict(_fields(value))
            metadata[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    return ErrorInfo(reason, metadata) if domain == ERROR_INFO_DOMAIN else None


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; others do not occur here."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        if key & 7 != _LENGTH_DELIMITED:
            raise ValueError("unexpected field type")
        length, position = _varint(data, position)
        if position + length > len(data):
            raise ValueError("a field runs past the end")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number runs past the end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
