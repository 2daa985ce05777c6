"""Handles of commands that run in the background, and outlive a connection.

What they read, and when they connect again, is in `command.py`.
"""

from __future__ import annotations

from mitos._sdk._async.command import AsyncFollower
from mitos._sdk._loop.worker import Worker
from mitos._sdk.value.command import ExecResult

__all__ = ["KILL_S", "READY_S", "AsyncBackgroundProcess"]

READY_S = 10.0
"""How long a start waits for the server's word; a server of another make sends it with output."""

KILL_S = 5.0
"""How long a kill waits for the command's last word."""


class AsyncBackgroundProcess:
    r"""A command that runs in a sandbox; its output is read beside the caller.

    Example:
        >>> build = await sb.exec_background("echo built")
        >>> (await build.wait()).stdout
        'built\n'
    """

    def __init__(self, follower: AsyncFollower) -> None:
        self._follower = follower
        self._reader = Worker(follower.follow, "mitos-command")
        follower.progress.on_started = self._reader.note_ready

    def __repr__(self) -> str:
        return f"AsyncBackgroundProcess(id={self.id!r})"

    @classmethod
    async def _begin(cls, follower: AsyncFollower) -> AsyncBackgroundProcess:
        """The handle, once the server has the command.

        Raises:
            AgentRunError: it does not.
        """
        process = cls(follower)
        process._reader.start()
        await process._reader.wait_ready(READY_S)
        if (failure := process._reader.failure) is not None:
            raise failure
        return process

    @property
    def id(self) -> str:
        """The command's id: `sb.command(id)` finds it again, also from another process."""
        return self._follower.id

    @property
    def lost_bytes(self) -> int:
        """Output that the sandbox had dropped before it could be read, in bytes."""
        return self._follower.progress.lost_bytes

    def running(self) -> bool:
        """True until the command's end is known here.

        Example:
            >>> job = await sb.exec_background("sleep 60")
            >>> job.running()
            True
        """
        return self._reader.is_running

    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Waits for the command's end.

        Args:
            timeout: seconds; None waits as long as the command runs.

        Returns:
            Its result; exit code 124 at its deadline, -1 when it was killed.

        Raises:
            TimeoutError: it still runs; it goes on.
            AgentRunError: the command or its sandbox is gone, or the server for too long.

        Example:
            >>> job = await sb.exec_background("exit 3")
            >>> (await job.wait()).exit_code
            3
        """
        if not await self._reader.join(timeout):
            raise TimeoutError(f"command {self.id} still runs")
        return self._reader.result()

    async def kill(self) -> None:
        """Kills the command and everything it started; the sandbox goes on. Idempotent.

        Raises:
            AgentRunError: the server could not be reached.

        Example:
            >>> job = await sb.exec_background("sleep 60")
            >>> await job.kill()
            >>> job.running()
            False
        """
        await self._follower.kill()
        await self._reader.join(KILL_S)
