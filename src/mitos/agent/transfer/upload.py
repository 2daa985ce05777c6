"""A tar stream unpacked into a sandbox.

A member that would land outside its folder, or is no regular file or directory, is refused before
anything is written for it. What earlier members wrote stays. Small files are written several at a
time: one by one, each would cost a round trip to the agent.
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
import tarfile
from collections.abc import AsyncIterable, AsyncIterator

from mitos.agent.client import AgentClient
from mitos.agent.transfer.tar import (
    BLOCK,
    SMALL_BYTES,
    TOGETHER,
    WORKSPACE,
    TarReader,
    malformed,
    next_member,
    refused,
)
from mitos.wire.errors import ApiError

__all__ = ["upload"]


async def upload(agent: AgentClient, dest: str, chunks: AsyncIterable[bytes]) -> int:
    """Unpacks a tar below `dest`, which is made if need be; returns the tar's size in bytes.

    Owners and times are not taken over; a file that exists keeps its mode.

    Raises:
        ApiError: `forbidden` for a member that is no regular file or directory, is not below
            `dest`, or would be written through a link; `invalid_input` for what is no tar;
            `file_failed` over 64 MiB.
    """
    reader = TarReader(chunks)
    tree = _Tree(agent)
    await tree.make_folder(dest, 0)
    try:
        while member := await next_member(reader):
            await _unpack(tree, dest, member, reader)
        await tree.settle()
    finally:
        await tree.close()
    while await reader.some(SMALL_BYTES):
        pass  # a tar is filled up to its record size
    return reader.received_bytes


async def _unpack(tree: _Tree, dest: str, member: tarfile.TarInfo, reader: TarReader) -> None:
    path = _target(dest, member)
    if member.isdir():
        await tree.make_folder(path, member.mode & 0o7777)
        return
    if path == dest:
        raise refused(f"member {member.name!r} has no name", "Give every file a name.")
    if member.size < 0:
        raise malformed("a negative size")
    if member.size <= SMALL_BYTES:
        await tree.write_small(path, await reader.exactly(member.size), member.mode)
    else:
        await tree.write(path, reader.pieces(member.size), member.mode)
    await reader.exactly(-member.size % BLOCK)


def _target(dest: str, member: tarfile.TarInfo) -> str:
    """Where a member goes: below `dest`."""
    name = member.name
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise refused(
            f"member {name!r} is no regular file or directory",
            "Leave links, devices and pipes out of the tar.",
        )
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise refused(f"member {name!r} is not below the folder", "Use relative names.")
    return posixpath.normpath(posixpath.join(dest, name))


class _Tree:
    """The sandbox's tree while an archive is unpacked into it; remembers what it has looked at."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
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
        await self._agent.make_directory(path, mode=mode)
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
        return await self._agent.write_file(path, chunks, mode=mode)

    async def _check(self, path: str) -> None:
        """Refuses what is there and is neither file nor directory: a link would lead elsewhere."""
        try:
            entry = await self._agent.stat(path)
        except ApiError as exc:
            if exc.code == "not_found":
                return
            raise
        if not (entry.is_directory or stat.S_ISREG(entry.mode)):
            raise refused(
                f"{path!r} is a link or a special file in the sandbox",
                "Remove it first, or upload to another folder.",
            )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
