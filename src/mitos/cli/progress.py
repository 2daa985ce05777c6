"""How long work shows its steps: a line per step with its time, on standard error.

On a terminal the step under way has a spinner; into a file every step is one plain line, written
when it begins, so that a log says where it is.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

__all__ = ["Steps"]


class Steps:
    """Shows steps as they begin and end. A context manager; call it with each step's text.

    A block that ends in an exception leaves its last step marked as failed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._status = self._console.status("") if self._console.is_terminal else None
        self._current = ""
        self._began_at_s = 0.0

    def __call__(self, text: str) -> None:
        """Ends the step under way and begins the next."""
        self._end("done")
        self._current, self._began_at_s = text, time.monotonic()
        if self._status is None:
            self._console.print(text, soft_wrap=True)
            return
        self._status.update(text)
        self._status.start()

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end("done" if kind is None else "failed")

    def _end(self, how: str) -> None:
        if not self._current:
            return
        took_s = time.monotonic() - self._began_at_s
        if self._status is not None:
            self._status.stop()
            self._console.print(f"{self._current} ({how}, {took_s:.1f} s)", soft_wrap=True)
        elif how != "done":
            self._console.print(f"{self._current}: {how} after {took_s:.1f} s", soft_wrap=True)
        self._current = ""
