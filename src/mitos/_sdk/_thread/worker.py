"""A call that runs beside its caller: on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import sleep
from typing import Generic, TypeVar, cast

__all__ = ["Worker", "sleep"]

_T = TypeVar("_T")


class Worker(Generic[_T]):
    """Runs one call.

    Args:
        call: what to run.
        name: of the thread.
    """

    def __init__(self, call: Callable[[], _T], name: str) -> None:
        self._call = call
        self._ready = threading.Event()
        self._over = threading.Event()
        self._has_ended = False
        self._result: _T | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the call."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """True from the start until the call has ended."""
        return self._is_started and not self._has_ended

    @property
    def failure(self) -> BaseException | None:
        """What the call raised; None while it runs."""
        return self._failure

    def note_ready(self) -> None:
        """Says that the call has got so far that its starter may go on."""
        self._ready.set()

    def wait_ready(self, timeout_s: float) -> None:
        """Waits until the call is ready, has ended, or the time is over."""
        self._ready.wait(timeout_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the end; False if the time is over first. None waits for as long as it takes.

        A call that was never started has ended. The call itself does not wait here for its own end.
        """
        if not self._is_started:
            return True
        if self._thread is threading.current_thread() or not self._over.wait(timeout_s):
            return False
        if self._has_ended:
            self._thread.join()
        return True

    def release(self) -> None:
        """Lets everybody go on who waits for the end; a thread cannot be made to end."""
        self._over.set()

    def result(self) -> _T:
        """What the call returned, or raises what it raised.

        Preconditions: it has ended.
        """
        if self._failure is not None:
            raise self._failure
        return cast("_T", self._result)

    @property
    def _is_started(self) -> bool:
        return self._thread.ident is not None

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as exc:  # noqa: BLE001  raised where the end is waited for
            self._failure = exc
        finally:
            self._has_ended = True
            self._ready.set()
            self._over.set()
