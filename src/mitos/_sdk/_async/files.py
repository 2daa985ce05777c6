"""The files of a sandbox: small ones whole, large ones and trees in pieces, and their changes.

What goes from or to local files is never held in memory as a whole; they are read and written where
the call runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mitos._sdk import answer, local_tree, request
from mitos._sdk._async.rpc import AsyncRpc
from mitos._sdk._loop.worker import sleep
from mitos._sdk.folding import ExecFold, FileFold, file_info
from mitos._sdk.value.file import FileEvent, FileInfo
from mitos.errors import AgentRunError

__all__ = ["AsyncDirectSandboxFiles"]

PIECE_TIMEOUT_S = 600.0
"""Between two pieces: long enough for any disk, and not for ever."""

TAR_TIMEOUT_S = 3600

TOO_LARGE_STATUS = 429
"""The answer for a tree that is over the limit of one archive."""


class AsyncDirectSandboxFiles:
    """The files of a sandbox. Relative paths resolve against `/workspace`.

    Example:
        >>> await sb.files.write("/workspace/plan.txt", "draft")
        >>> [each.name for each in await sb.files.list("/workspace")]
        ['plan.txt']
    """

    def __init__(self, rpc: AsyncRpc) -> None:
        self._rpc = rpc

    async def read(self, path: str) -> str:
        """A file as text: UTF-8, undecodable bytes replaced.

        Raises:
            NotFoundError: no such file.

        Example:
            >>> await sb.files.read("/workspace/plan.txt")
            'draft'
        """
        return (await self.read_bytes(path)).decode("utf-8", "replace")

    async def read_bytes(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            NotFoundError: no such file.
            TruncatedStreamError: the answer ended before the file did.

        Example:
            >>> await sb.files.read_bytes("/workspace/plan.txt")
            b'draft'
        """
        attempts = self._rpc.http.outage.attempts(may_repeat=True)
        while True:
            fold = FileFold()
            try:
                await self._rpc.stream(
                    "ReadFile", [{"path": path}], fold.take, read_timeout_s=PIECE_TIMEOUT_S
                )
            except AgentRunError as exc:
                delay_s = attempts.delay_after(exc)
            else:
                return fold.result()
            await sleep(delay_s)

    async def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Replaces a file in one step, making parents as needed; `mode` is that of a new file.

        Raises:
            AgentRunError: the path is a directory, the sandbox is out of space, …

        Example:
            >>> await sb.files.write("/workspace/plan.txt", "draft")
        """
        messages = [*request.write_messages(path, content, mode)]
        await self._rpc.stream(
            "WriteFile", messages, lambda _: None, read_timeout_s=PIECE_TIMEOUT_S
        )

    async def list(self, path: str = "/") -> list[FileInfo]:
        """The entries of a directory, one level.

        Raises:
            NotFoundError: no such directory.

        Example:
            >>> [(each.name, each.size) for each in await sb.files.list("/workspace")]
            [('plan.txt', 5)]
        """
        found = await self._rpc.unary("List", {"parent": path})
        entries = answer.rows({"entries": [], **found}, "entries", self._rpc.http.api_key)
        return [file_info(entry) for entry in entries]

    async def exists(self, path: str) -> bool:
        """True when there is something at the path.

        Example:
            >>> await sb.files.exists("/workspace/plan.txt")
            True
        """
        try:
            await self._rpc.unary("List", {"parent": path})
        except AgentRunError as exc:
            if exc.status == 404 and exc.code == "not_found" and "sandbox" not in exc.context:
                return False
            if "not a directory" in exc.cause.lower():
                return True
            raise
        return True

    async def remove(self, path: str) -> None:
        """Removes a file or a whole directory; a missing path is fine.

        Example:
            >>> await sb.files.remove("/workspace/plan.txt")
        """
        await self._rpc.unary("Remove", {"path": path})

    async def mkdir(self, path: str) -> None:
        """Makes a directory and its parents; an existing one is fine.

        Example:
            >>> await sb.files.mkdir("/workspace/deep/er")
        """
        await self._rpc.unary("Mkdir", {"path": path})

    async def upload(
        self,
        source: str | os.PathLike[str] | IO[bytes],
        path: str,
        mode: int = 0o644,
        on_progress: local_tree.Progress | None = None,
    ) -> None:
        """Writes a local file, or what an open file holds, of any size, in one step.

        Args:
            source: a local path or a file opened for reading bytes.
            path: in the sandbox.
            mode: of a new file.
            on_progress: called with the bytes sent so far.

        Example:
            >>> await sb.files.upload("model.bin", "/workspace/model.bin")
        """
        if isinstance(source, (str, os.PathLike)):
            with local_tree.opened(Path(source)) as content:
                await self.upload(content, path, mode, on_progress)
            return
        pieces = local_tree.file_pieces(source, on_progress)
        await self._send("WriteFile", local_tree.write_messages(path, mode, pieces))

    async def download(
        self,
        path: str,
        target: str | os.PathLike[str] | IO[bytes],
        on_progress: local_tree.Progress | None = None,
    ) -> int:
        """Copies a file of any size to a local one, or into an open file; returns its bytes.

        A local path is replaced in one step once all has come.

        Raises:
            NotFoundError: no such file.

        Example:
            >>> await sb.files.download("/workspace/plan.txt", "plan.txt")
            5
        """
        if isinstance(target, (str, os.PathLike)):
            with local_tree.replaced(Path(target)) as content:
                return await self.download(path, content, on_progress)
        sink = local_tree.PartSink(target, on_progress)
        await self._rpc.stream(
            "ReadFile", [{"path": path}], sink.take, read_timeout_s=PIECE_TIMEOUT_S
        )
        return sink.received_bytes

    async def upload_dir(
        self,
        source: str | os.PathLike[str],
        path: str,
        on_progress: local_tree.Progress | None = None,
    ) -> int:
        """Copies a local folder to a folder in `/workspace`; links are left out.

        Args:
            source: the local folder.
            path: in the sandbox; made if it is not there.
            on_progress: called with the bytes of the files sent so far.

        Returns:
            How many bytes the files have.

        Raises:
            PermissionDeniedError: the path is outside `/workspace`, or leads through a link.

        Example:
            >>> await sb.files.upload_dir("project", "/workspace/project")
            1
        """
        folder = Path(source)
        found = local_tree.local_files(folder)
        large = [p for p in found if p.is_file() and p.stat().st_size > local_tree.LARGE_BYTES]
        sent = 0
        for names, pieces in local_tree.tars(folder, [p for p in found if p not in set(large)]):
            await self._send("Upload", local_tree.upload_messages(path, pieces))
            sent += sum(p.stat().st_size for p in names if p.is_file())
            if on_progress:
                on_progress(sent)
        for file in large:
            name = str(PurePosixPath(path, file.relative_to(folder).as_posix()))
            await self.upload(file, name, file.stat().st_mode & 0o777)
            sent += file.stat().st_size
            if on_progress:
                on_progress(sent)
        return sent

    async def download_dir(
        self,
        path: str,
        target: str | os.PathLike[str],
        on_progress: local_tree.Progress | None = None,
        max_bytes: int = local_tree.MAX_TREE_BYTES,
    ) -> None:
        """Copies a folder of `/workspace` below a local one, links included.

        A tree over 64 MiB is sent again from the start, by the program `tar` in the sandbox.

        Args:
            path: in the sandbox.
            target: made if it is not there; nothing is written outside it, whatever the server
                sends.
            on_progress: called with the bytes received so far.
            max_bytes: of the whole tree; 4 GiB unless said otherwise.

        Raises:
            NotFoundError: no such folder.
            AgentRunError: it is too large, or holds a link that leads out of it.

        Example:
            >>> await sb.files.mkdir("/workspace/out")
            >>> await sb.files.download_dir("/workspace/out", "out")
        """
        message = {"path": path, "direction": "DOWNLOAD"}
        with local_tree.spooled() as archive:
            sink = local_tree.PartSink(archive, on_progress, max_bytes)
            try:
                await self._rpc.stream(
                    "Archive", [message], sink.take, read_timeout_s=PIECE_TIMEOUT_S
                )
            except AgentRunError as exc:
                if exc.status != TOO_LARGE_STATUS:
                    raise
                archive.seek(0)
                archive.truncate()
                await self._download_tar(
                    path, local_tree.PartSink(archive, on_progress, max_bytes), exc
                )
            local_tree.unpack(archive, Path(target))

    @asynccontextmanager
    async def watch(
        self, path: str = "/workspace", *, recursive: bool = False, quiet_s: float | None = None
    ) -> AsyncGenerator[AsyncGenerator[FileEvent]]:
        """What changes in a folder of `/workspace`, from the start of the block on.

        Args:
            path: the folder.
            recursive: also everything below it, folders made later included.
            quiet_s: the longest wait for a change; None waits for ever.

        Raises:
            NotFoundError: no such folder.
            AgentRunError: more changed than the server could keep.

        Example:
            >>> async with sb.files.watch("/workspace") as changes:
            ...     await sb.files.write("/workspace/new", "")
            ...     (await anext(changes)).path
            '/workspace/new'
        """
        found = self._rpc.messages(
            "Watch",
            [{"path": path, "recursive": recursive}],
            read_timeout_s=quiet_s,
            headers={"X-Mitos-Watch-Ready": "1"},
        )
        async with aclosing(found) as messages:
            await anext(messages, None)
            async with aclosing(_events(messages)) as events:
                yield events

    async def _download_tar(
        self, path: str, archive: local_tree.PartSink, refusal: AgentRunError
    ) -> None:
        sink = local_tree.TarSink(ExecFold(0), archive)
        command = request.exec_message(["tar", "-C", path, "-cf", "-", "."], TAR_TIMEOUT_S)
        await self._rpc.stream("ExecStream", [command], sink.take, read_timeout_s=PIECE_TIMEOUT_S)
        sink.check(refusal)

    async def _send(self, method: str, messages: Any) -> None:
        await self._rpc.stream(method, messages, lambda _: None, read_timeout_s=PIECE_TIMEOUT_S)


async def _events(messages: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[FileEvent]:
    async for message in messages:
        yield FileEvent(
            kind=str(message.get("kind", "")),
            path=str(message.get("path", "")),
            new_path=str(message.get("newPath", "")),
        )
