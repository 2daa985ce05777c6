"""Who may make machines now: so many requests at a time, the others wait in line, for a while.

A burst of requests that all made machines at once would bring the host to a standstill, and none
of them would be served in its time. In line they are served one after the other, and who would
wait too long is told so at once, with a time to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator

from mitos.wire.errors import ApiError

__all__ = ["Admission"]

_SECONDS_A_TURN = 0.2
"""What a request takes about; for the time that a refused one is told to wait."""


class Admission:
    """A line in which who came first goes first.

    Args:
        at_once: requests that are served at the same time.
        max_waiting: requests in line; more are refused.
        deadline_s: how long one may wait.
    """

    def __init__(self, *, at_once: int, max_waiting: int, deadline_s: float) -> None:
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        self._serving = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Has the caller's turn for the time of the block.

        Raises:
            ApiError: `rate_limited`, the line is full, or did not move on in time.
        """
        if self._serving < self._at_once:
            self._serving += 1
        else:
            await self._wait()  # who goes hands over its turn
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        if len(self._line) >= self._max_waiting:
            raise self._busy("too many others wait for one")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            async with asyncio.timeout(self._deadline_s):
                await place
        except BaseException as exc:
            if place.done() and not place.cancelled():
                self._pass_on()  # it came at the moment in which the wait was given up
            elif place in self._line:
                self._line.remove(place)
            if isinstance(exc, TimeoutError):
                raise self._busy(f"none came within {self._deadline_s:.0f} s") from None
            raise

    def _pass_on(self) -> None:
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._serving -= 1

    def _busy(self, cause: str) -> ApiError:
        wait_s = max(math.ceil((len(self._line) + 1) * _SECONDS_A_TURN / self._at_once), 1)
        return ApiError(
            "rate_limited",
            "this server makes as many machines as it can",
            cause=cause,
            remediation=f"Send the request again in {wait_s} s, or fewer at the same time.",
            context={"retry_after_ms": wait_s * 1000},
        )
