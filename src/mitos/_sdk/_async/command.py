"""Following a command of a sandbox to its end, over as many connections as it takes."""

from __future__ import annotations

from typing import Any

import httpx

from mitos._sdk import connection
from mitos._sdk._async.rpc import AsyncRpc
from mitos._sdk._loop.worker import sleep
from mitos._sdk.folding import ExecFold
from mitos._sdk.reconnecting import Progress
from mitos._sdk.value.command import ExecResult
from mitos.errors import AgentRunError

__all__ = ["AsyncFollower"]

SILENCE_S = 60.0
"""A connection that says nothing for so long is replaced: it may be dead."""


class AsyncFollower:
    """Reads one kept command: starts it, or attaches to it, and attaches again when it must.

    Args:
        rpc: the sandbox that it runs in.
        command_id: its id.
        fold: takes the output.
        start: the message that starts the command; None attaches to one that runs.
    """

    def __init__(
        self,
        rpc: AsyncRpc,
        command_id: str,
        fold: ExecFold,
        start: dict[str, Any] | None,
    ) -> None:
        self._rpc = rpc
        self._start = start or {}
        self._response: httpx.Response | None = None
        self.id = command_id
        self.progress = Progress(fold, attaches=start is None)

    async def follow(self) -> ExecResult:
        """The command's result, once it has ended; 124 at its deadline.

        Raises:
            AgentRunError: the server's error, or no connection for too long.
        """
        while True:
            try:
                await self._connect()
                return self.progress.result()
            except AgentRunError as exc:
                if self.progress.is_killed:
                    return self.progress.killed_result()
                delay_s = self.progress.delay_after(exc)
            await sleep(delay_s)

    async def kill(self) -> None:
        """Kills all processes of the command, if it still runs."""
        if self.progress.has_ended:
            return
        path = f"/v1/sandboxes/{self._rpc.sandbox_id}/commands/{self.id}"
        try:
            await self._rpc.http.call("DELETE", path)
        except AgentRunError as exc:
            if exc.status not in (404, 405, 501):
                raise
            if not self.progress.can_resume and self._response is not None:
                # A server that keeps no commands ends one with its connection.
                self.progress.is_killed = True
                connection.hang_up(self._response)

    async def _connect(self) -> None:
        message = {"command": ""} if self.progress.attaches else self._start
        await self._rpc.stream(
            "ExecStream",
            [message],
            self.progress.take,
            read_timeout_s=SILENCE_S,
            headers=self.progress.headers(self.id),
            take_response=self._take_response,
        )

    def _take_response(self, response: httpx.Response) -> None:
        self._response = response
        self.progress.take_headers(response.headers)
