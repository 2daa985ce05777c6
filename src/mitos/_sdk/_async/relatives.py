"""What a sandbox does among those it was forked from or with: compare, go back, take a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitos._sdk import answer, request, tree
from mitos._sdk._async.files import AsyncDirectSandboxFiles
from mitos._sdk._async.http import AsyncHttp
from mitos.types import Checkpoint, FileDiff, Kin

if TYPE_CHECKING:
    from mitos._sdk._async.direct import AsyncDirectSandbox

__all__ = ["AsyncRelatives"]

DIFF_TIMEOUT_S = 600.0
"""Both sandboxes read all their files for a diff."""


class AsyncRelatives:
    """The part of a sandbox's handle that is about its family and its own past."""

    id: str
    files: AsyncDirectSandboxFiles
    _http: AsyncHttp

    async def tree(self) -> list[Kin]:
        """Everybody related to this sandbox by forks, the ended included; oldest first.

        Example:
            >>> a, b = await sb.fork(2)
            >>> [kin.phase for kin in await sb.tree()]
            ['Ready', 'Ready', 'Ready']
        """
        reply = await self._http.call("GET", f"/v1/sandboxes/{self.id}/tree")
        return tree.tree(reply, self._http.api_key)

    async def checkpoint(self, name: str = "") -> Checkpoint:
        """Keeps a snapshot to go back to; the sandbox goes on.

        Args:
            name: a label of at most 256 characters.

        Raises:
            AgentRunError: `quota_exceeded` when it has as many as it may.

        Example:
            >>> before = await sb.checkpoint("before the upgrade")
            >>> await sb.restore(before)
        """
        path = f"/v1/sandboxes/{self.id}/checkpoints"
        reply = await self._http.fork(path, {"name": name}, request.new_key())
        return tree.checkpoint(reply, self._http.api_key)

    async def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of this sandbox, oldest first.

        Example:
            >>> kept = await sb.checkpoint("first")
            >>> [each.name for each in await sb.checkpoints()]
            ['first']
        """
        reply = await self._http.call("GET", f"/v1/sandboxes/{self.id}/checkpoints")
        return tree.checkpoints(reply, self._http.api_key)

    async def delete_checkpoint(self, checkpoint: Checkpoint | str) -> None:
        """Removes a checkpoint, given whole or by its id.

        Raises:
            NotFoundError: it has no such checkpoint.

        Example:
            >>> kept = await sb.checkpoint()
            >>> await sb.delete_checkpoint(kept)
        """
        path = f"/v1/sandboxes/{self.id}/checkpoints/{tree.checkpoint_id(checkpoint)}"
        await self._http.call("DELETE", path)

    async def restore(self, checkpoint: Checkpoint | str) -> None:
        """Puts the sandbox back to a checkpoint, given whole or by its id; it keeps its own id.

        Calls that are open on it end with `canceled`.

        Raises:
            NotFoundError: it has no such checkpoint.

        Example:
            >>> before = await sb.checkpoint()
            >>> await sb.files.write("/workspace/new", "")
            >>> await sb.restore(before)
            >>> await sb.files.exists("/workspace/new")
            False
        """
        body = {"checkpoint": tree.checkpoint_id(checkpoint)}
        await self._http.fork(f"/v1/sandboxes/{self.id}/restore", body, request.new_key())

    async def diff(self, other: AsyncDirectSandbox | str) -> FileDiff:
        """The files a relative has added, removed and modified, seen from this sandbox.

        Args:
            other: a sandbox of the same family, or its id.

        Example:
            >>> a, b = await sb.fork(2)
            >>> await b.files.write("/workspace/new", "")
            >>> (await a.diff(b)).added
            ['/workspace/new']
        """
        other_id = other if isinstance(other, str) else other.id
        path = f"/v1/sandboxes/{self.id}/diff?with={request.checked_id(other_id)}"
        reply = await self._http.call("GET", path, timeout_s=DIFF_TIMEOUT_S)
        return tree.diff(reply, self._http.api_key)

    async def promote(self) -> None:
        """Takes the parent's id, and the parent ends; this handle then has that id.

        Raises:
            AgentRunError: it has no parent, is paused, or another sandbox has that id.

        Example:
            >>> (child,) = await sb.fork()
            >>> await child.promote()
            >>> child.id == sb.id
            True
        """
        path = f"/v1/sandboxes/{self.id}/promote"
        reply = await self._http.fork(path, {}, request.new_key())
        self.id = answer.descriptor(reply, self._http.api_key)["id"]
        self.files = AsyncDirectSandboxFiles(self.id, self._http)
