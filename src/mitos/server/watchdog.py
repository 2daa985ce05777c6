"""Says where the server stands when it makes no progress: its loop, or one request.

A loop that stands still serves nobody: a handler computes for ever, or waits in a call that
blocks. A thread asks the loop for a sign of life; without one it logs the file and line where the
loop is. A call in C that keeps the interpreter's lock stops that thread too: then `faulthandler`,
which needs no lock, writes the tracebacks of all threads to the standard error.

A request that waits holds up nobody else, and may be right to: for a command, an event, its client.
It is logged with the file and line where it waits, ever more rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mitos.server.journal import current_request

__all__ = ["RequestWatch", "watch_loop"]

_log = logging.getLogger(__name__)

LOOP_S = 2.0
"""How long the loop may give no sign of life."""

LOCK_S = 15.0
"""How long the interpreter's lock may be kept."""

REQUEST_S = 60.0
"""How long a request may neither take nor give anything before it is said for the first time."""

GROWTH = 10
"""It is said again after so many times as long."""

SHOWN = 5
"""Lines of the code, from the innermost."""


@contextlib.contextmanager
def watch_loop(*, loop_s: float = LOOP_S, lock_s: float = LOCK_S) -> Iterator[None]:
    """Watches over the running loop, which is this thread's.

    Args:
        loop_s: how long it may stand still.
        lock_s: how long the interpreter's lock may be kept.
    """
    watch = _LoopWatch(asyncio.get_running_loop(), loop_s, lock_s)
    thread = threading.Thread(target=watch.run, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stop.set()
        thread.join()


class _LoopWatch:
    def __init__(self, loop: asyncio.AbstractEventLoop, loop_s: float, lock_s: float) -> None:
        self.stop = threading.Event()
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._loop_s = loop_s
        self._lock_s = lock_s

    def run(self) -> None:
        """Asks for signs of life until told to stop."""
        try:
            while not self.stop.wait(self._loop_s / 2):
                self._arm()
                self._ask()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        if sys.__stderr__ is None:
            return
        with contextlib.suppress(OSError, ValueError):  # it is closed, or no file
            faulthandler.dump_traceback_later(self._lock_s, file=sys.__stderr__)

    def _ask(self) -> None:
        answered, asked, limit_s = threading.Event(), time.monotonic(), self._loop_s
        try:
            self._loop.call_soon_threadsafe(answered.set)
        except RuntimeError:
            return  # the loop is closed: what watches over it is about to be stopped
        while not answered.wait(self._loop_s / 2) and not self.stop.is_set():
            self._arm()
            waited_s = time.monotonic() - asked
            if waited_s >= limit_s:
                self._tell(waited_s)
                limit_s *= GROWTH

    def _tell(self, waited_s: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return
        frames = traceback.extract_stack(frame)
        _log.error(
            "the loop has stood still for %.0f s at %s",
            waited_s,
            _place([(each.filename, each.lineno or 0, each.name) for each in frames]),
        )


class RequestWatch:
    """An ASGI layer that notes which requests make no progress.

    Args:
        app: serves the requests.
        request_s: how long one may neither take nor give anything.
    """

    def __init__(self, app: ASGIApp, *, request_s: float = REQUEST_S) -> None:
        self._app = app
        self._request_s = request_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = _Request(self._request_s, current_request())

        async def take() -> Message:
            message = await receive()
            watched.note_move()
            return message

        async def give(message: Message) -> None:
            await send(message)
            watched.note_move()

        try:
            await self._app(scope, take, give)
        finally:
            watched.end()


class _Request:
    def __init__(self, limit_s: float, name: Callable[[], str]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._first_s = limit_s
        self._name = name
        self.note_move()
        self._timer = self._loop.call_later(limit_s, self._look)

    def note_move(self) -> None:
        """Something has come, or gone."""
        self._moved = self._loop.time()
        self._limit_s = self._first_s

    def end(self) -> None:
        """It has been served."""
        self._timer.cancel()

    def _look(self) -> None:
        idle_s = self._loop.time() - self._moved
        if idle_s >= self._limit_s:
            _log.warning(
                "%s has made no progress for %.0f s: it waits at %s",
                self._name(),
                idle_s,
                _place(_awaits(self._task.get_coro())),
            )
            self._limit_s *= GROWTH
        self._timer = self._loop.call_later(self._limit_s - idle_s, self._look)


def _awaits(coroutine: Any) -> list[tuple[str, int, str]]:
    """Where a suspended coroutine waits: file, line and function, the innermost last."""
    found: list[tuple[str, int, str]] = []
    while coroutine is not None:
        frame: FrameType | None = None
        following = None
        for kind in ("cr", "ag", "gi"):
            frame = frame or getattr(coroutine, f"{kind}_frame", None)
            waited = "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
            following = following or getattr(coroutine, waited, None)
        if frame is not None:
            found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        coroutine = following
    return found


def _place(frames: list[tuple[str, int, str]]) -> str:
    """The innermost lines, each after the one that it was called from."""
    shown = [f"{file}:{line} in {function}" for file, line, function in frames[-SHOWN:]]
    return ", ".join(reversed(shown)) or "an unknown place"
