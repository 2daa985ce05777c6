"""Commands that run in the background: handles that outlive a connection, over a kept command.

`BackgroundProcess` reads on a thread of its own, `AsyncBackgroundProcess` in a task of the running
loop. What they read, and when they connect again, is in `_sdk/_async/command.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from mitos.types import ExecResult

if TYPE_CHECKING:
    from mitos._sdk._async.command import AsyncFollower
    from mitos._sdk._sync.command import Follower

__all__ = ["AsyncBackgroundProcess", "BackgroundProcess"]

READY_S = 10.0
"""How long a start waits for the server's word; a server of another make sends it with output."""

KILL_S = 5.0
"""How long a kill waits for the command's last word."""


class BackgroundProcess:
    r"""A command that runs in a sandbox, and is read on a thread of this process.

    Example:
        >>> build = sb.exec_background("echo built")
        >>> build.wait().stdout
        'built\n'
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._ready = threading.Event()
        self._result: ExecResult | None = None
        self._error: BaseException | None = None
        follower.progress.on_started = self._ready.set
        self._thread = threading.Thread(target=self._read, name="mitos-command", daemon=True)

    def __repr__(self) -> str:
        return f"BackgroundProcess(id={self.id!r})"

    @classmethod
    def _begin(cls, follower: Follower) -> BackgroundProcess:
        """The handle, once the server has the command.

        Raises:
            AgentRunError: it does not.
        """
        process = cls(follower)
        process._thread.start()
        process._ready.wait(READY_S)
        if process._error is not None:
            raise process._error
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
            >>> job = sb.exec_background("sleep 60")
            >>> job.running()
            True
        """
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> ExecResult:
        """Waits for the command's end.

        Args:
            timeout: seconds; None waits as long as the command runs.

        Returns:
            Its result; exit code 124 at its deadline, -1 when it was killed.

        Raises:
            TimeoutError: it still runs; it goes on.
            AgentRunError: the command or its sandbox is gone, or the server for too long.

        Example:
            >>> sb.exec_background("exit 3").wait().exit_code
            3
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"command {self.id} still runs")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def kill(self) -> None:
        """Kills the command and everything it started; the sandbox goes on. Idempotent.

        Raises:
            AgentRunError: the server could not be reached.

        Example:
            >>> job = sb.exec_background("sleep 60")
            >>> job.kill()
            >>> job.running()
            False
        """
        self._follower.kill()
        self._thread.join(KILL_S)

    def _read(self) -> None:
        try:
            self._result = self._follower.follow()
        except BaseException as exc:  # noqa: BLE001  raised where the end is waited for
            self._error = exc
        finally:
            self._ready.set()


class AsyncBackgroundProcess:
    r"""A command that runs in a sandbox, and is read in a task of the running loop.

    Example:
        >>> build = await sb.exec_background("echo built")
        >>> (await build.wait()).stdout
        'built\n'
    """

    def __init__(self, follower: AsyncFollower) -> None:
        self._follower = follower
        self._ready = asyncio.Event()
        follower.progress.on_started = self._ready.set
        self._task = asyncio.create_task(follower.follow(), name="mitos-command")
        self._task.add_done_callback(self._note_end)

    def __repr__(self) -> str:
        return f"AsyncBackgroundProcess(id={self.id!r})"

    @classmethod
    async def _begin(cls, follower: AsyncFollower) -> AsyncBackgroundProcess:
        """The handle, once the server has the command.

        Raises:
            AgentRunError: it does not.
        """
        process = cls(follower)
        try:
            await asyncio.wait_for(process._ready.wait(), READY_S)
        except asyncio.TimeoutError:  # noqa: UP041  Python 3.10 has one of its own
            pass
        except BaseException:
            process._task.cancel()
            raise
        if process._task.done():
            with contextlib.suppress(asyncio.CancelledError):
                if error := process._task.exception():
                    raise error
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
        return not self._task.done()

    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Waits for the command's end; arguments and errors as `BackgroundProcess.wait`.

        Example:
            >>> job = await sb.exec_background("exit 3")
            >>> (await job.wait()).exit_code
            3
        """
        done, _ = await asyncio.wait((self._task,), timeout=timeout)
        if not done:
            raise TimeoutError(f"command {self.id} still runs")
        return self._task.result()

    async def kill(self) -> None:
        """Kills the command and everything it started; the sandbox goes on. Idempotent.

        Raises:
            AgentRunError: the server could not be reached.

        Example:
            >>> job = await sb.exec_background("sleep 60")
            >>> await job.kill()
        """
        await self._follower.kill()
        await asyncio.wait((self._task,), timeout=KILL_S)

    def _note_end(self, task: asyncio.Task[ExecResult]) -> None:
        self._ready.set()
        if not task.cancelled():
            task.exception()  # marks it retrieved: nobody may be waiting
