"""A tree of a sandbox as a tar stream.

Small files are read several at a time: one by one, each would cost a round trip to the agent.
"""

from __future__ import annotations

import asyncio
import stat
import tarfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from mitos.agent.client import AgentClient
from mitos.agent.file import FileEntry
from mitos.agent.transfer.tar import BLOCK, SMALL_BYTES, TAR_LIMIT_BYTES, TOGETHER, too_large
from mitos.wire.errors import ApiError

__all__ = ["archive"]


async def archive(agent: AgentClient, root: str) -> AsyncGenerator[bytes]:
    """The tree below `root` as a tar, names relative to it; a file gives that one member.

    Symbolic links are kept as links; sockets, pipes and devices are left out. A file that changes
    meanwhile is cut or filled with zeros to the size its header says.

    Raises:
        ApiError: `not_found`; `file_failed` over 64 MiB; what reading raises.
    """
    sent_bytes = 0
    async with aclosing(_archived(agent, root)) as chunks:
        async for chunk in chunks:
            sent_bytes += len(chunk)
            if sent_bytes > TAR_LIMIT_BYTES:
                raise too_large()
            yield chunk


async def _archived(agent: AgentClient, root: str) -> AsyncGenerator[bytes]:
    waiting: deque[tuple[FileEntry, str, asyncio.Task[bytes] | None]] = deque()
    try:
        async with aclosing(_walk(agent, root)) as found:
            async for entry, name in found:
                small = stat.S_ISREG(entry.mode) and 0 < entry.size <= SMALL_BYTES
                task = asyncio.create_task(_content(agent, entry)) if small else None
                waiting.append((entry, name, task))
                if len(waiting) >= TOGETHER:
                    async for chunk in _member(agent, *waiting.popleft()):
                        yield chunk
        while waiting:
            async for chunk in _member(agent, *waiting.popleft()):
                yield chunk
        yield bytes(2 * BLOCK)
    finally:
        tasks = [task for _, _, task in waiting if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _walk(agent: AgentClient, root: str) -> AsyncGenerator[tuple[FileEntry, str]]:
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            entries = await agent.list_directory(folder, exact=True)
        except ApiError as exc:
            if exc.code != "not_found" or folder == root:
                raise
            continue  # it vanished meanwhile
        for entry in entries:
            name = prefix + entry.name
            yield entry, name
            if entry.is_directory:
                folders.append((entry.path, name + "/"))


async def _content(agent: AgentClient, entry: FileEntry) -> bytes:
    async with aclosing(agent.read_file(entry.path, size=entry.size)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def _member(
    agent: AgentClient, entry: FileEntry, name: str, task: asyncio.Task[bytes] | None
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
    async with aclosing(agent.read_file(entry.path, size=entry.size)) as chunks:
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
    return bytes(-size % BLOCK)
