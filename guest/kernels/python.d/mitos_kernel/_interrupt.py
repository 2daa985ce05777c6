"""The interrupt with which the agent ends a cell at its deadline."""

import _thread
import signal


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt: only in a cell, and never in a shielded section."""

    def __init__(self):
        self.in_cell = False
        self.requested = False
        self._shields = 0
        self._pending = False
        self._thread = _thread.get_ident()
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number, _frame):
        if not self.in_cell:
            return
        self.requested = True
        if self._shields:
            self._pending = True
        else:
            raise KeyboardInterrupt

    def __enter__(self):
        if _thread.get_ident() == self._thread:
            self._shields += 1

    def __exit__(self, *_exc):
        if _thread.get_ident() != self._thread:
            return
        self._shields -= 1
        if self._pending and not self._shields and self.in_cell:
            self._pending = False
            raise KeyboardInterrupt

    def begin(self):
        self.requested = self._pending = False
        self.in_cell = True

    def end(self):
        self.in_cell = False
