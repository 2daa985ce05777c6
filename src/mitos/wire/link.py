"""The guest link's codec: bytes in, frames out, no sockets and no time.

One definition of `spec/guest-link.md` for the Python side. `agent/link.py` moves the bytes and
keeps the streams; `guest/link.c` is the other end. Everything here raises `LinkError` on bytes the
document does not allow: they come from a guest and are hostile.

    header: length u32 | stream u32 | type u8 | channel u8 | zero u16   (big-endian), then the
        payload
    fields: tag u8 | length u32 | value, repeated
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = [
    "DATA_LIMIT",
    "HEADER_SIZE",
    "INITIAL_CREDIT",
    "KERNEL_MESSAGE_LIMIT",
    "NONCE_SIZE",
    "PAYLOAD_LIMIT",
    "VERSION",
    "Channel",
    "Control",
    "EntryDecoder",
    "Fields",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "KernelEvent",
    "KernelEventDecoder",
    "KernelEventKind",
    "LinkError",
    "Operation",
    "Status",
    "Tag",
    "decode_entries",
]

VERSION = 1
HEADER_SIZE = 12
PAYLOAD_LIMIT = 1 << 20
DATA_LIMIT = 1 << 16
INITIAL_CREDIT = 1 << 18
KERNEL_MESSAGE_LIMIT = 96 << 20
NONCE_SIZE = 32

_HEADER = struct.Struct("!IIBBH")
_FIELD = struct.Struct("!BI")
_ENTRY = struct.Struct("!I")
_EVENT = struct.Struct("!IB")


class LinkError(Exception):
    """The peer sent bytes that `spec/guest-link.md` does not allow."""


class FrameType(enum.IntEnum):
    """The kinds of frame, section 1 of the document."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    EOF = 4
    CREDIT = 5
    CONTROL = 6
    CLOSE = 7
    CANCEL = 8
    FREEZE = 9
    FROZEN = 10
    THAW = 11
    PING = 12
    PONG = 13


class Operation(enum.IntEnum):
    """What an `OPEN` asks for: its channel byte."""

    IDENTIFY = 1
    EXEC = 2
    READ_FILE = 3
    WRITE_FILE = 4
    LIST = 5
    STAT = 6
    MKDIR = 7
    REMOVE = 8
    RUN_CODE = 9
    PROCESSES = 10
    SIGNAL = 11
    VITALS = 12
    WATCH = 13
    DIAL = 14
    ACCEPT = 15
    ATTACH = 16
    COMMANDS = 19
    END_COMMAND = 20


class Channel(enum.IntEnum):
    """Which of a stream's flows a `DATA` or `EOF` belongs to."""

    INPUT = 0
    OUTPUT = 1
    ERROR = 2


class Status(enum.IntEnum):
    """How a stream ended: the channel byte of its `CLOSE`."""

    OK = 0
    FAILED = 1
    CANCELED = 2
    INVALID = 3
    UNAVAILABLE = 4


class Control(enum.IntEnum):
    """What a `CONTROL` asks of a running operation: its channel byte."""

    RESIZE = 1
    SIGNAL = 2
    FORK_REPLY = 3


class Tag(enum.IntEnum):
    """Names of fields, section 2 of the document."""

    VERSION = 1
    BUILD = 2
    ERRNO = 3
    MESSAGE = 4
    SANDBOX_ID = 5
    GENERATION = 6
    ENTROPY = 7
    WALL_CLOCK = 8
    HOSTNAME = 9
    MACHINE_ID = 10
    TOKEN = 11
    FORKED = 12
    ENV = 13
    ARG = 14
    CWD = 15
    TIMEOUT = 16
    STDIN = 17
    COLS = 18
    ROWS = 19
    TERM = 20
    PATH = 21
    MODE = 22
    SIZE = 23
    MTIME = 24
    OFFSET = 25
    RECURSIVE = 26
    NAME = 27
    LINK_TARGET = 28
    LANGUAGE = 30
    PID = 31
    SIGNAL = 32
    EXIT_CODE = 33
    TIMED_OUT = 34
    DURATION = 35
    PORT = 36
    COMMAND_ID = 37
    LOST = 38
    KERNEL_PID = 39
    KEEP = 40
    COMMAND = 41
    ENDED = 42
    CHANGE = 45
    NEW_PATH = 46
    PARENT_PID = 60
    STATE = 61
    CPU_TIME = 62
    RESIDENT = 63
    START_TIME = 64
    CLOCK = 65
    PROCESS_COUNT = 66


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `channel` means what the type says: an operation, a data channel, a status."""

    type: FrameType
    stream: int = 0
    channel: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """The frame's bytes.

        Raises:
            ValueError: the payload is over `PAYLOAD_LIMIT`.
        """
        if len(self.payload) > PAYLOAD_LIMIT:
            raise ValueError(f"payload of {len(self.payload)} bytes is over {PAYLOAD_LIMIT}")
        return (
            _HEADER.pack(len(self.payload), self.stream, self.type, self.channel, 0) + self.payload
        )


class FrameDecoder:
    """Turns arbitrary slices of the byte stream into frames.

    Holds at most one incomplete frame, so at most `HEADER_SIZE + PAYLOAD_LIMIT` bytes.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def at_boundary(self) -> bool:
        """True when no frame is half received."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields each frame that `data` completes.

        Raises:
            LinkError: the bytes break the document; the decoder is unusable afterwards.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= HEADER_SIZE:
                length, stream, kind, channel, zero = _HEADER.unpack_from(self._buffer, start)
                frame_type = _check_header(length, stream, kind, channel, zero)
                end = start + HEADER_SIZE + length
                if len(self._buffer) < end:
                    break
                payload = bytes(memoryview(self._buffer)[start + HEADER_SIZE : end])
                start = end
                yield Frame(frame_type, stream, channel, payload)
        finally:
            del self._buffer[:start]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the header of a frame type may say; the same table is in `guest/link.c`."""

    on_stream: bool
    channels: range
    lengths: range


_NO_CHANNEL = range(1)
_ANY_CHANNEL = range(256)  # unknown operations and control codes are not violations
_DATA_CHANNELS = range(Channel.ERROR + 1)
_ANY_LENGTH = range(PAYLOAD_LIMIT + 1)

_SHAPES = {
    FrameType.HELLO: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=_ANY_LENGTH),
    FrameType.OPEN: _Shape(on_stream=True, channels=_ANY_CHANNEL, lengths=_ANY_LENGTH),
    FrameType.DATA: _Shape(
        on_stream=True, channels=_DATA_CHANNELS, lengths=range(1, DATA_LIMIT + 1)
    ),
    FrameType.EOF: _Shape(on_stream=True, channels=_DATA_CHANNELS, lengths=range(1)),
    FrameType.CREDIT: _Shape(on_stream=True, channels=_NO_CHANNEL, lengths=range(4, 5)),
    FrameType.CONTROL: _Shape(on_stream=True, channels=_ANY_CHANNEL, lengths=_ANY_LENGTH),
    FrameType.CLOSE: _Shape(
        on_stream=True, channels=range(Status.UNAVAILABLE + 1), lengths=_ANY_LENGTH
    ),
    FrameType.CANCEL: _Shape(on_stream=True, channels=_NO_CHANNEL, lengths=range(1)),
    FrameType.FREEZE: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=range(8, 9)),
    FrameType.FROZEN: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=range(8, 9)),
    FrameType.THAW: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=range(1)),
    FrameType.PING: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=range(8, 9)),
    FrameType.PONG: _Shape(on_stream=False, channels=_NO_CHANNEL, lengths=range(8, 9)),
}


def _check_header(length: int, stream: int, kind: int, channel: int, zero: int) -> FrameType:
    if zero != 0:
        raise LinkError(f"reserved header bytes are {zero:#06x}, not zero")
    try:
        frame_type = FrameType(kind)
    except ValueError:
        raise LinkError(f"unknown frame type {kind}") from None
    shape = _SHAPES[frame_type]
    if length not in shape.lengths:
        raise LinkError(f"{frame_type.name} frame of {length} bytes")
    if (stream != 0) != shape.on_stream:
        raise LinkError(f"{frame_type.name} frame on stream {stream}")
    if channel not in shape.channels:
        raise LinkError(f"{frame_type.name} frame with channel {channel}")
    return frame_type


@dataclass(slots=True)
class Fields:
    """An ordered list of tagged values: the structured payload of `OPEN`, `CLOSE` and others.

    Example:
        >>> Fields().text(Tag.PATH, "/tmp").uint(Tag.MODE, 0o644).encode().hex()[:10]
        '1500000004'
    """

    items: list[tuple[int, bytes]] = field(default_factory=list)

    def raw(self, tag: Tag, value: bytes) -> Fields:
        """Adds bytes as they are."""
        self.items.append((tag, value))
        return self

    def text(self, tag: Tag, value: str) -> Fields:
        """Adds a string; lone surrogates stand for undecodable bytes of a path."""
        return self.raw(tag, value.encode("utf-8", "surrogateescape"))

    def texts(self, tag: Tag, values: Iterable[str]) -> Fields:
        """Adds a repeated string."""
        for value in values:
            self.text(tag, value)
        return self

    def uint(self, tag: Tag, value: int) -> Fields:
        """Adds an unsigned integer below 2**64."""
        return self.raw(tag, value.to_bytes(8, "big"))

    def encode(self) -> bytes:
        """The payload's bytes."""
        return b"".join(_FIELD.pack(tag, len(value)) + value for tag, value in self.items)

    @classmethod
    def decode(cls, payload: bytes) -> Fields:
        """Reads a payload.

        Raises:
            LinkError: a field runs past the end.
        """
        fields, position = cls(), 0
        while position < len(payload):
            if len(payload) - position < _FIELD.size:
                raise LinkError("a field's header runs past the payload")
            tag, length = _FIELD.unpack_from(payload, position)
            position += _FIELD.size
            if len(payload) - position < length:
                raise LinkError(f"field {tag} of {length} bytes runs past the payload")
            fields.items.append((tag, payload[position : position + length]))
            position += length
        return fields

    def get_raw(self, tag: Tag) -> bytes | None:
        """The last value of the tag, or None."""
        for found, value in reversed(self.items):
            if found == tag:
                return value
        return None

    def get_text(self, tag: Tag, default: str = "") -> str:
        """The last value as a string; bytes that are not UTF-8 become lone surrogates."""
        value = self.get_raw(tag)
        return default if value is None else value.decode("utf-8", "surrogateescape")

    def get_texts(self, tag: Tag) -> list[str]:
        """Every value of a repeated tag."""
        return [v.decode("utf-8", "surrogateescape") for found, v in self.items if found == tag]

    def get_raws(self, tag: Tag) -> list[bytes]:
        """Every value of a repeated tag, as bytes."""
        return [value for found, value in self.items if found == tag]

    def get_uint(self, tag: Tag, default: int = 0) -> int:
        """The last value of the tag as an unsigned integer.

        Raises:
            LinkError: the value is not 8 bytes.
        """
        return self._integer(tag, default, signed=False)

    def get_int(self, tag: Tag, default: int = 0) -> int:
        """The last value of the tag as a signed integer.

        Raises:
            LinkError: the value is not 8 bytes.
        """
        return self._integer(tag, default, signed=True)

    def _integer(self, tag: Tag, default: int, *, signed: bool) -> int:
        value = self.get_raw(tag)
        if value is None:
            return default
        if len(value) != 8:
            raise LinkError(f"integer field {tag.name} has {len(value)} bytes, not 8")
        return int.from_bytes(value, "big", signed=signed)


def decode_entries(data: bytes) -> Iterator[Fields]:
    """Reads the output of `LIST`: entries of `length u32, fields`.

    Raises:
        LinkError: an entry runs past the end.
    """
    position = 0
    while position < len(data):
        if len(data) - position < _ENTRY.size:
            raise LinkError("an entry's length runs past the listing")
        (length,) = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        if len(data) - position < length:
            raise LinkError(f"an entry of {length} bytes runs past the listing")
        yield Fields.decode(data[position : position + length])
        position += length


class EntryDecoder:
    """The same for output that never ends, as of `WATCH`; holds at most one entry."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Fields]:
        """Yields each entry that `data` completes.

        Raises:
            LinkError: an entry over `PAYLOAD_LIMIT`.
        """
        self._buffer += data
        while len(self._buffer) >= _ENTRY.size:
            (length,) = _ENTRY.unpack_from(self._buffer)
            if length > PAYLOAD_LIMIT:
                raise LinkError(f"an entry of {length} bytes is over {PAYLOAD_LIMIT}")
            end = _ENTRY.size + length
            if len(self._buffer) < end:
                return
            entry = bytes(memoryview(self._buffer)[_ENTRY.size : end])
            del self._buffer[:end]
            yield Fields.decode(entry)


class KernelEventKind(enum.IntEnum):
    """What a code kernel says about the running cell, section 5 of the document."""

    STDOUT = 1
    STDERR = 2
    RESULT = 3
    ERROR = 4
    DONE = 5


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One message of a kernel."""

    kind: KernelEventKind
    payload: bytes

    @classmethod
    def error(cls, name: str, value: str) -> KernelEvent:
        """An `ERROR` event that does not come from the kernel itself."""
        body = {"name": name, "value": value, "traceback": []}
        return cls(KernelEventKind.ERROR, json.dumps(body).encode())


class KernelEventDecoder:
    """Turns the output bytes of `RUN_CODE` into kernel events; holds at most one message."""

    def __init__(self, limit: int = KERNEL_MESSAGE_LIMIT) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[KernelEvent]:
        """Yields each event that `data` completes.

        Raises:
            LinkError: unknown kind, or a message over the limit.
        """
        self._buffer += data
        while len(self._buffer) >= _EVENT.size:
            length, kind = _EVENT.unpack_from(self._buffer)
            if length > self._limit:
                raise LinkError(f"kernel message of {length} bytes is over {self._limit}")
            try:
                event_kind = KernelEventKind(kind)
            except ValueError:
                raise LinkError(f"unknown kernel message {kind}") from None
            end = _EVENT.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[_EVENT.size : end])
            del self._buffer[:end]
            yield KernelEvent(event_kind, payload)
