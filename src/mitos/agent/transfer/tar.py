"""The tar format as it is moved in and out of sandboxes: its bounds, and the reading of members.

A tar that comes in is hostile: headers are read block by block, and extension records are bounded.
`upload.py` decides what a member may do, `download.py` makes archives.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import AsyncIterable, AsyncIterator

from mitos.wire.errors import ApiError, ConnectCode

__all__ = [
    "BLOCK",
    "SMALL_BYTES",
    "TAR_LIMIT_BYTES",
    "TOGETHER",
    "WORKSPACE",
    "TarReader",
    "malformed",
    "next_member",
    "refused",
    "too_large",
    "workspace_path",
]

WORKSPACE = "/workspace"

TAR_LIMIT_BYTES = 64 << 20
"""Of one archive, out or in. Larger trees go in several; larger files through read and write."""

RECORD_LIMIT_BYTES = 64 << 10
"""Of one extension record: a long name, or attributes."""

SMALL_BYTES = 64 << 10
"""Files up to this size are moved beside others, in memory."""

TOGETHER = 16
"""Small files on their way at the same time: at most 1 MiB of content."""

BLOCK = tarfile.BLOCKSIZE
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def workspace_path(path: str) -> str:
    """The absolute path of something in `/workspace`, `.` and `..` resolved.

    Raises:
        ApiError: `forbidden` for a path outside; `invalid_input` for a NUL.
    """
    if "\0" in path:
        raise ApiError("invalid_input", "a path must hold no NUL byte")
    found = posixpath.normpath(posixpath.join(WORKSPACE, path)) if path else ""
    found = "/" + found.lstrip("/")
    if found != WORKSPACE and not found.startswith(WORKSPACE + "/"):
        raise refused(f"{path!r} is outside {WORKSPACE}", "Name a path below /workspace.")
    return found


class TarReader:
    """The bytes of a tar as they come, counted against the limit."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._rest = b""
        self.received_bytes = 0

    async def some(self, limit: int) -> bytes:
        """1 to `limit` bytes, or none at the end.

        Raises:
            ApiError: `file_failed` over 64 MiB.
        """
        while not self._rest:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return b""
            self.received_bytes += len(chunk)
            if self.received_bytes > TAR_LIMIT_BYTES:
                raise too_large()
            self._rest = chunk
        found, self._rest = self._rest[:limit], self._rest[limit:]
        return found

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """Exactly `size` bytes, in pieces.

        Raises:
            ApiError: `invalid_input` when the archive ends before.
        """
        while size > 0:
            piece = await self.some(min(size, SMALL_BYTES))
            if not piece:
                raise malformed("it ends in the middle of a member")
            size -= len(piece)
            yield piece

    async def exactly(self, size: int) -> bytes:
        """The same in one; for what is known to be small."""
        return b"".join([piece async for piece in self.pieces(size)])


async def next_member(reader: TarReader) -> tarfile.TarInfo | None:
    """The next real member's header, with the name and size its extensions gave it.

    None at the archive's end.

    Raises:
        ApiError: `invalid_input` for what is no tar, `forbidden` for a sparse member.
    """
    name, size = "", -1
    while True:
        block = await reader.some(BLOCK)
        if block and len(block) < BLOCK:
            block += await reader.exactly(BLOCK - len(block))
        if not block.strip(b"\0"):
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as exc:
            raise malformed(str(exc)) from None
        if member.type == tarfile.XGLTYPE:
            await _record(reader, member)
            continue
        if member.type not in _EXTENSIONS:
            member.name = name or member.name
            member.size = size if size >= 0 else member.size
            return member
        record = await _record(reader, member)
        if member.type == tarfile.GNUTYPE_LONGNAME:
            name = record.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif member.type == tarfile.XHDTYPE:
            attributes = _attributes(record)
            name = attributes.get("path", name)
            size = _size(attributes["size"]) if "size" in attributes else size


async def _record(reader: TarReader, member: tarfile.TarInfo) -> bytes:
    if not 0 <= member.size <= RECORD_LIMIT_BYTES:
        raise malformed(f"an extension record of {member.size} bytes")
    return (await reader.exactly(member.size + -member.size % BLOCK))[: member.size]


def _attributes(record: bytes) -> dict[str, str]:
    """The `length key=value` lines of a PAX record."""
    found: dict[str, str] = {}
    while record:
        digits, space, _ = record.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 6:
            raise malformed("a broken extension record")
        length = int(digits)
        line = record[len(digits) + 1 : length]
        key, equals, value = line.partition(b"=")
        if length > len(record) or not equals or not value.endswith(b"\n"):
            raise malformed("a broken extension record")
        text = value[:-1].decode("utf-8", "surrogateescape")
        found[key.decode("utf-8", "surrogateescape")] = text
        record = record[length:]
    if any(key.startswith("GNU.sparse") for key in found):
        raise refused("a sparse member", "Make the tar without sparse files.")
    return found


def _size(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise malformed("a broken size")
    return int(text)


def malformed(reason: str) -> ApiError:
    """The refusal of bytes that are no tar, or not all of one."""
    return ApiError(
        "invalid_input", "the upload is not a readable tar", cause=reason,
        remediation="Send an uncompressed tar, all of it.",
    )  # fmt: skip


def refused(message: str, remediation: str) -> ApiError:
    """The refusal of a member or a path that may not be."""
    return ApiError("forbidden", message, remediation=remediation)


def too_large() -> ApiError:
    """The refusal of an archive over the limit."""
    return ApiError(
        "file_failed",
        f"the tar is over {TAR_LIMIT_BYTES >> 20} MiB",
        remediation="Move the tree in several parts, and large files with files.read and write.",
        connect=ConnectCode.RESOURCE_EXHAUSTED,
    )
