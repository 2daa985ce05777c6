"""Trees of a sandbox as tar streams, out and in.

The server makes and reads the tar; every file goes through the agent's ordinary operations
(`node/guest.py`), so no name in an archive ever reaches the host's file system. Small files are
read and written several at a time: one by one, each would cost a round trip to the agent.

A tar that comes in is hostile: headers are read block by block, extension records are bounded, and
a member that would land outside its folder, or is no regular file or directory, is refused before
anything is written for it. What earlier members wrote stays.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
import tarfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing

from mitos.node.file import FileEntry
from mitos.node.guest import Guest
from mitos.wire.errors import ApiError, ConnectCode

__all__ = ["TAR_LIMIT_BYTES", "archive", "upload", "workspace_path"]

WORKSPACE = "/workspace"

TAR_LIMIT_BYTES = 64 << 20
"""Of one archive, out or in. Larger trees go in several; larger files through read and write."""

RECORD_LIMIT_BYTES = 64 << 10
"""Of one extension record: a long name, or attributes."""

SMALL_BYTES = 64 << 10
"""Files up to this size are moved beside others, in memory."""

TOGETHER = 16
"""Small files on their way at the same time: at most 1 MiB of content."""

_BLOCK = tarfile.BLOCKSIZE
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
        raise _refused(f"{path!r} is outside {WORKSPACE}", "Name a path below /workspace.")
    return found


async def archive(guest: Guest, root: str) -> AsyncGenerator[bytes]:
    """The tree below `root` as a tar, names relative to it; a file gives that one member.

    Symbolic links are kept as links; sockets, pipes and devices are left out. A file that changes
    meanwhile is cut or filled with zeros to the size its header says.

    Raises:
        ApiError: `not_found`; `file_failed` over 64 MiB; what reading raises.
    """
    sent_bytes = 0
    async with aclosing(_archived(guest, root)) as chunks:
        async for chunk in chunks:
            sent_bytes += len(chunk)
            if sent_bytes > TAR_LIMIT_BYTES:
                raise _too_large()
            yield chunk


async def _archived(guest: Guest, root: str) -> AsyncGenerator[bytes]:
    waiting: deque[tuple[FileEntry, str, asyncio.Task[bytes] | None]] = deque()
    try:
        async with aclosing(_walk(guest, root)) as found:
            async for entry, name in found:
                small = stat.S_ISREG(entry.mode) and 0 < entry.size <= SMALL_BYTES
                task = asyncio.create_task(_content(guest, entry)) if small else None
                waiting.append((entry, name, task))
                if len(waiting) >= TOGETHER:
                    async for chunk in _member(guest, *waiting.popleft()):
                        yield chunk
        while waiting:
            async for chunk in _member(guest, *waiting.popleft()):
                yield chunk
        yield bytes(2 * _BLOCK)
    finally:
        tasks = [task for _, _, task in waiting if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _walk(guest: Guest, root: str) -> AsyncGenerator[tuple[FileEntry, str]]:
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            entries = await guest.list_directory(folder, exact=True)
        except ApiError as exc:
            if exc.code != "not_found" or folder == root:
                raise
            continue  # it vanished meanwhile
        for entry in entries:
            name = prefix + entry.name
            yield entry, name
            if entry.is_directory:
                folders.append((entry.path, name + "/"))


async def _content(guest: Guest, entry: FileEntry) -> bytes:
    async with aclosing(guest.read_file(entry.path, size=entry.size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def _member(
    guest: Guest, entry: FileEntry, name: str, task: asyncio.Task[bytes] | None
) -> AsyncIterator[bytes]:
    header = _header(entry, name)
    if header is None:
        return
    if task is not None:
        try:
            content = await task
        except ApiError as exc:
            if exc.code == "not_found":
                return
            raise
        yield header + content.ljust(entry.size, b"\0") + _padding(entry.size)
        return
    yield header
    if not stat.S_ISREG(entry.mode) or entry.size == 0:
        return
    left = entry.size
    async with aclosing(guest.read_file(entry.path, size=entry.size)) as chunks:
        async for chunk in chunks:
            left -= len(chunk)
            yield chunk
    while left > 0:
        yield bytes(min(left, SMALL_BYTES))
        left -= min(left, SMALL_BYTES)
    yield _padding(entry.size)


def _header(entry: FileEntry, name: str) -> bytes | None:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(entry.mode)
    member.mtime = entry.modified_at_unix
    if stat.S_ISREG(entry.mode):
        member.size = entry.size
    elif entry.is_directory:
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        member.type, member.linkname = tarfile.SYMTYPE, entry.link_target
    else:
        return None
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


class _Reader:
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
                raise _too_large()
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
                raise _malformed("it ends in the middle of a member")
            size -= len(piece)
            yield piece

    async def exactly(self, size: int) -> bytes:
        """The same in one; for what is known to be small."""
        return b"".join([piece async for piece in self.pieces(size)])


async def upload(guest: Guest, dest: str, chunks: AsyncIterable[bytes]) -> int:
    """Unpacks a tar below `dest`, which is made if need be; returns the tar's size in bytes.

    Owners and times are not taken over; a file that exists keeps its mode.

    Raises:
        ApiError: `forbidden` for a member that is no regular file or directory, is not below
            `dest`, or would be written through a link; `invalid_input` for what is no tar;
            `file_failed` over 64 MiB.
    """
    reader = _Reader(chunks)
    tree = _Tree(guest)
    await tree.make_folder(dest, 0)
    try:
        while member := await _next_member(reader):
            await _unpack(tree, dest, member, reader)
        await tree.settle()
    finally:
        await tree.close()
    while await reader.some(SMALL_BYTES):
        pass  # a tar is filled up to its record size
    return reader.received_bytes


async def _next_member(reader: _Reader) -> tarfile.TarInfo | None:
    """The next real member's header, with the name and size its extensions gave it."""
    name, size = "", -1
    while True:
        block = await reader.some(_BLOCK)
        if block and len(block) < _BLOCK:
            block += await reader.exactly(_BLOCK - len(block))
        if not block.strip(b"\0"):
            return None
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as exc:
            raise _malformed(str(exc)) from None
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


async def _record(reader: _Reader, member: tarfile.TarInfo) -> bytes:
    if not 0 <= member.size <= RECORD_LIMIT_BYTES:
        raise _malformed(f"an extension record of {member.size} bytes")
    return (await reader.exactly(member.size + -member.size % _BLOCK))[: member.size]


def _attributes(record: bytes) -> dict[str, str]:
    """The `length key=value` lines of a PAX record."""
    found: dict[str, str] = {}
    while record:
        digits, space, _ = record.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 6:
            raise _malformed("a broken extension record")
        length = int(digits)
        line = record[len(digits) + 1 : length]
        key, equals, value = line.partition(b"=")
        if length > len(record) or not equals or not value.endswith(b"\n"):
            raise _malformed("a broken extension record")
        text = value[:-1].decode("utf-8", "surrogateescape")
        found[key.decode("utf-8", "surrogateescape")] = text
        record = record[length:]
    if any(key.startswith("GNU.sparse") for key in found):
        raise _refused("a sparse member", "Make the tar without sparse files.")
    return found


def _size(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise _malformed("a broken size")
    return int(text)


async def _unpack(tree: _Tree, dest: str, member: tarfile.TarInfo, reader: _Reader) -> None:
    path = _target(dest, member)
    if member.isdir():
        await tree.make_folder(path, member.mode & 0o7777)
        return
    if path == dest:
        raise _refused(f"member {member.name!r} has no name", "Give every file a name.")
    if member.size < 0:
        raise _malformed("a negative size")
    if member.size <= SMALL_BYTES:
        await tree.write_small(path, await reader.exactly(member.size), member.mode)
    else:
        await tree.write(path, reader.pieces(member.size), member.mode)
    await reader.exactly(-member.size % _BLOCK)


def _target(dest: str, member: tarfile.TarInfo) -> str:
    """Where a member goes: below `dest`."""
    name = member.name
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise _refused(
            f"member {name!r} is no regular file or directory",
            "Leave links, devices and pipes out of the tar.",
        )
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise _refused(f"member {name!r} is not below the folder", "Use relative names.")
    return posixpath.normpath(posixpath.join(dest, name))


class _Tree:
    """The sandbox's tree while an archive is unpacked into it; remembers what it has looked at."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._folders = {WORKSPACE}
        self._writes: dict[str, asyncio.Task[int]] = {}

    async def make_folder(self, path: str, mode: int) -> None:
        """Makes a directory and its parents, none of which may be a link."""
        if path in self._folders:
            return
        parent = posixpath.dirname(path)
        if parent not in self._folders:
            await self.make_folder(parent, 0)
        if path in self._writes:
            await self.settle()
        await self._check(path)
        await self._guest.make_directory(path, mode=mode)
        self._folders.add(path)

    async def write_small(self, path: str, content: bytes, mode: int) -> None:
        """Writes a file beside others; `settle` waits for them all."""
        await self.make_folder(posixpath.dirname(path), 0)
        if path in self._writes or len(self._writes) >= TOGETHER:
            await self._settle_some(path)
        task = asyncio.create_task(self._write(path, _once(content), mode))
        self._writes[path] = task

    async def write(self, path: str, chunks: AsyncIterable[bytes], mode: int) -> None:
        """Writes a file as its content comes."""
        await self.make_folder(posixpath.dirname(path), 0)
        if path in self._writes:
            await self.settle()
        await self._write(path, chunks, mode)

    async def settle(self) -> None:
        """Waits for the files that are being written.

        Raises:
            ApiError: the first that failed.
        """
        while self._writes:
            await self._settle_some(next(iter(self._writes)))

    async def close(self) -> None:
        """Gives up what is still being written."""
        for task in self._writes.values():
            task.cancel()
        await asyncio.gather(*self._writes.values(), return_exceptions=True)

    async def _settle_some(self, path: str) -> None:
        """Waits for the write to `path`, or for any one of them when there is none."""
        task = self._writes.get(path)
        await asyncio.wait(
            [task] if task else self._writes.values(), return_when=asyncio.FIRST_COMPLETED
        )
        for name, write in [*self._writes.items()]:
            if write.done():
                del self._writes[name]
                write.result()

    async def _write(self, path: str, chunks: AsyncIterable[bytes], mode: int) -> int:
        await self._check(path)
        return await self._guest.write_file(path, chunks, mode=mode)

    async def _check(self, path: str) -> None:
        """Refuses what is there and is neither file nor directory: a link would lead elsewhere."""
        try:
            entry = await self._guest.stat(path)
        except ApiError as exc:
            if exc.code == "not_found":
                return
            raise
        if not (entry.is_directory or stat.S_ISREG(entry.mode)):
            raise _refused(
                f"{path!r} is a link or a special file in the sandbox",
                "Remove it first, or upload to another folder.",
            )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _malformed(reason: str) -> ApiError:
    return ApiError(
        "invalid_input", "the upload is not a readable tar", cause=reason,
        remediation="Send an uncompressed tar, all of it.",
    )  # fmt: skip


def _refused(message: str, remediation: str) -> ApiError:
    return ApiError("forbidden", message, remediation=remediation)


def _too_large() -> ApiError:
    return ApiError(
        "file_failed",
        f"the tar is over {TAR_LIMIT_BYTES >> 20} MiB",
        remediation="Move the tree in several parts, and large files with files.read and write.",
        connect=ConnectCode.RESOURCE_EXHAUSTED,
    )
