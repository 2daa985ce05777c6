"""A call that runs beside its caller: in a task of the running loop."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["Worker", "sleep"]

_T = TypeVar("_T")


class Worker(Generic[_T]):
    """Runs one call.

    Args:
        call: what to run.
        name: of the task.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, _T]], name: str) -> None:
        self._call = call
        self._name = name
        self._ready = asyncio.Event()
        self._task: asyncio.Task[_T] | None = None

    def start(self) -> None:
        """Starts the call."""
        self._task = asyncio.create_task(self._call(), name=self._name)
        self._task.add_done_callback(self._note_end)

    @property
    def is_running(self) -> bool:
        """True from the start until the call has ended."""
        return self._task is not None and not self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """What the call raised; None while it runs, and when it was cancelled."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    def note_ready(self) -> None:
        """Says that the call has got so far that its starter may go on."""
        self._ready.set()

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until the call is ready, has ended, or the time is over.

        A caller that is cancelled meanwhile takes the call with it.
        """
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except asyncio.TimeoutError:  # noqa: UP041  Python 3.10 has one of its own
            pass
        except BaseException:
            if self._task is not None:
                self._task.cancel()
            raise

    async def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the end; False if the time is over first. None waits for as long as it takes.

        A call that was never started has ended.
        """
        if self._task is None:
            return True
        done, _ = await asyncio.wait((self._task,), timeout=timeout_s)
        return bool(done)

    def result(self) -> _T:
        """What the call returned, or raises what it raised.

        Preconditions: it has ended.
        """
        assert self._task is not None
        return self._task.result()

    def _note_end(self, task: asyncio.Task[_T]) -> None:
        self._ready.set()
        if not task.cancelled():
            task.exception()  # marks it retrieved: nobody may be waiting
