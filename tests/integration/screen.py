"""A person in front of a terminal: what is on the screen, and what is typed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pyte

import mitos
from mitos.pty import PtyHandle

__all__ = ["DEADLINE_S", "Person", "at_terminal"]

DEADLINE_S = 15.0


class Person:
    """Emulates the terminal on the client's side and waits for what shall appear.

    Args:
        cols: width in characters.
        rows: height in characters.
    """

    def __init__(self, cols: int, rows: int) -> None:
        self.screen = pyte.Screen(cols, rows)
        self.raw = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._changed = threading.Condition()
        self.handle: PtyHandle

    def see(self, data: bytes) -> None:
        """Takes output; called on the handle's thread."""
        with self._changed:
            self.raw += data
            self._stream.feed(data)
            self._changed.notify_all()

    def type(self, text: str | bytes) -> None:
        """Types; a newline is the Enter key."""
        data = text.replace("\n", "\r").encode() if isinstance(text, str) else text
        self.handle.send_input(data)

    def resize(self, cols: int, rows: int) -> None:
        """Pulls the window to another size."""
        with self._changed:
            self.screen.resize(rows, cols)
        self.handle.resize(cols, rows)

    def wait_until(self, holds: Callable[[list[str]], object]) -> list[str]:
        """Waits until the lines on the screen are as wanted, and returns them."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while not holds(lines := [line.rstrip() for line in self.screen.display]):
                left = deadline - time.monotonic()
                shown = "\n".join(lines)
                assert left > 0, f"it did not appear; the screen shows:\n{shown}"
                self._changed.wait(left)
            return lines

    def wait_for(self, line: str) -> list[str]:
        """Waits for a line that reads exactly so."""
        return self.wait_until(lambda lines: line in lines)

    def wait_for_output(self, mark: bytes, start: int = 0) -> bytes:
        """Waits for bytes in the output after `start`, and returns all of it from there."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while mark not in self.raw[start:]:
                left = deadline - time.monotonic()
                assert left > 0, f"{mark!r} did not come: {bytes(self.raw[-2000:])!r}"
                self._changed.wait(left)
            return bytes(self.raw[start:])

    def run(self, command: str) -> str:
        """Types a command into a shell; returns its output, found between two invisible marks."""
        start = len(self.raw)
        self.type(f"printf '\\002'; {command}; printf '\\003'\n")
        output = self.wait_for_output(b"\3", start)
        return output.split(b"\2")[1].split(b"\3")[0].replace(b"\r\n", b"\n").decode().strip()


@contextlib.contextmanager
def at_terminal(sandbox: mitos.DirectSandbox, cols: int = 80, rows: int = 24) -> Iterator[Person]:
    """Opens a terminal with a shell in it, and hangs up afterwards."""
    person = Person(cols, rows)
    person.handle = sandbox.pty(person.see, cols=cols, rows=rows)
    try:
        person.wait_for("#")
        yield person
    finally:
        person.handle.kill()
