"""What a cell prints, on its way to the agent.

Output comes on two ways that are kept in order: `sys.stdout` and `sys.stderr` write messages, and
descriptors 1 and 2 are pipes (subprocesses, C code) that a thread reads. Whoever writes a message
first empties the pipes: what a finished subprocess printed comes before what the cell prints next.
"""

import _thread
import io
import os
import select
import time

from ._link import STDERR, STDOUT

CHUNK = 1 << 16
FLUSH_DELAY_S = 0.02


class Output:
    """Everything a cell says, in order, in portions."""

    def __init__(self, link, interrupts):
        self._link = link
        self._interrupts = interrupts
        self._lock = _thread.allocate_lock()
        self._kind = STDOUT
        self._pending = bytearray()
        self._forked = False
        self._pipes = {self._capture(1): STDOUT, self._capture(2): STDERR}
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        os.register_at_fork(after_in_child=self._after_fork)
        _thread.start_new_thread(self._pump, ())

    @staticmethod
    def _capture(descriptor):
        reader, writer = os.pipe()
        os.dup2(writer, descriptor)
        os.close(writer)
        os.set_blocking(reader, False)
        return reader

    def _after_fork(self):
        """A child of a cell has no link: what it prints goes through descriptors 1 and 2."""
        self._forked = True
        self._pending = bytearray()
        self._lock = _thread.allocate_lock()
        self._link.close()

    @property
    def forked(self):
        """True in a process that a cell forked off."""
        return self._forked

    def write(self, kind, data):
        if self._forked:
            self._write_forked(kind, data)
            return
        with self._interrupts, self._lock:
            self._drain()
            if not self._pending:
                self._call_pump()
            self._add(kind, data)
            if len(self._pending) >= CHUNK:
                self._flush()

    def flush(self):
        if self._forked:
            self._flush_forked()
            return
        with self._interrupts, self._lock:
            self._drain()
            self._flush()

    def _write_forked(self, kind, data):
        """Line by line, so that the lines of several children do not mix."""
        if kind != self._kind:
            self._flush_forked()
            self._kind = kind
        self._pending += data
        if b"\n" in data or len(self._pending) >= CHUNK:
            self._flush_forked()

    def _flush_forked(self):
        pending, self._pending = self._pending, bytearray()
        write_all(1 if self._kind == STDOUT else 2, pending)

    def send(self, kind, payload):
        """Sends a message after everything that was said before it."""
        if self._forked:
            return
        with self._interrupts, self._lock:
            self._drain()
            self._flush()
            self._link.send(kind, payload)

    def _call_pump(self):
        try:
            os.write(self._woken, b"x")
        except BlockingIOError:
            pass  # it has been called more often than it could answer

    def _add(self, kind, data):
        if kind != self._kind:
            self._flush()
            self._kind = kind
        self._pending += data

    def _flush(self):
        pending, self._pending = self._pending, bytearray()
        for start in range(0, len(pending), CHUNK):
            self._link.send(self._kind, bytes(pending[start : start + CHUNK]))

    def _drain(self):
        """Takes what is in the pipes, at most a pipe's content each."""
        for reader, kind in self._pipes.items():
            try:
                data = os.read(reader, CHUNK)
            except BlockingIOError:
                continue
            if data:
                self._add(kind, data)

    def _pump(self):
        poller = select.poll()
        for reader in (*self._pipes, self._wake):
            poller.register(reader, select.POLLIN)
        while True:
            ready = poller.poll()
            if all(descriptor == self._wake for descriptor, _ in ready):
                time.sleep(FLUSH_DELAY_S)
            with self._lock:
                try:
                    os.read(self._wake, CHUNK)
                except BlockingIOError:
                    pass
                self._drain()
                self._flush()


def write_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class CellStream(io.RawIOBase):
    """The binary layer of `sys.stdout` and `sys.stderr`."""

    def __init__(self, output, kind):
        self._output = output
        self._kind = kind

    def writable(self):
        return True

    def fileno(self):
        return 1 if self._kind == STDOUT else 2

    def write(self, data):
        data = bytes(data)
        self._output.write(self._kind, data)
        return len(data)

    def flush(self):
        self._output.flush()

    def close(self):
        pass


def text_stream(output, kind):
    stream = io.TextIOWrapper(
        CellStream(output, kind),
        encoding="utf-8",
        errors="backslashreplace",
        newline="",
        write_through=True,
    )
    stream.mode = "w"
    return stream
