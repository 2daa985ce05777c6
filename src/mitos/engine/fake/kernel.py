"""The fake guest's code kernel: cells run one at a time in a thread of this process.

The thread holds a lock, the turn, whenever Python code of the cell runs, and gives it up between
two steps when somebody wants the namespace to stand still: a checkpoint or a pause. The same trace
function raises in the cell at its deadline or when it is cancelled. A cell stuck inside one long
call of C code cannot be reached; it is given up with its state after a grace time.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

from mitos.engine.fake import namespace
from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.view import CellView
from mitos.wire.link import KernelEvent, KernelEventKind

__all__ = ["Kernel"]

GRACE_S = 3.0
STANDSTILL_DEADLINE_S = 5.0
QUEUED_EVENTS = 64
POLL_S = 0.002
_OWN_FOLDER = os.path.dirname(__file__) + os.sep  # noqa: PTH120  a prefix of code objects' names

Emit = Callable[[KernelEvent], Awaitable[None]]


class _Interrupt(KeyboardInterrupt):
    """Raised in a cell that has to end."""


class _Cell:
    """One run of code, in a thread."""

    def __init__(self, turn: _Turn, *, timeout_s: float | None) -> None:
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(QUEUED_EVENTS)
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._is_canceled = False
        self.is_late = False
        self.events: asyncio.Queue[KernelEvent] = asyncio.Queue()

    def cancel(self) -> None:
        """Ends it at its next step."""
        self._is_canceled = True

    def taken(self) -> None:
        """Makes room for another event."""
        self._room.release()

    def check(self) -> None:
        """Raises when it has to end; called between lines and while waiting."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.is_late = True
        if self.is_late or self._is_canceled:
            raise _Interrupt

    def emit(self, kind: KernelEventKind, payload: bytes) -> None:
        """Sends an event, waiting while too many wait to be taken."""
        with self._turn.given_up():
            while not self._room.acquire(timeout=0.05):
                self.check()
        self.post(KernelEvent(kind, payload))

    def post(self, event: KernelEvent) -> None:
        """Sends an event at once."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)

    def sleep(self, seconds: float) -> None:
        """`time.sleep` that can be interrupted and does not hold up a checkpoint."""
        wakes_at = time.monotonic() + seconds
        with self._turn.given_up():
            while (left := wakes_at - time.monotonic()) > 0:
                time.sleep(min(left, 0.02))
                self.check()


class _Turn:
    """Who may touch the namespace: the running cell, or who wants it to stand still."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._wanted = 0
        self._takers = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For the cell's thread."""
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None

    @contextlib.contextmanager
    def given_up(self) -> Iterator[None]:
        """For the cell's thread while it waits; threads that a cell made have no turn to give."""
        if self._holder != threading.get_ident():
            yield
            return
        self._holder = None
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._holder = threading.get_ident()

    def offer(self) -> bool:
        """Gives the turn to who wants it; False when this thread does not have it."""
        while self._wanted and self._holder == threading.get_ident():
            with self.given_up():
                time.sleep(POLL_S)
        return self._holder == threading.get_ident()

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """For the event loop, also within one another.

        Raises:
            TimeoutError: the cell is stuck.
        """
        if not self._takers:
            await self._take()
        self._takers += 1
        try:
            yield
        finally:
            self._takers -= 1
            if not self._takers:
                self._lock.release()

    async def _take(self) -> None:
        self._wanted += 1
        try:
            async with asyncio.timeout(STANDSTILL_DEADLINE_S):
                while not self._lock.acquire(blocking=False):  # noqa: ASYNC110  a thread has it
                    await asyncio.sleep(POLL_S)
        finally:
            self._wanted -= 1


class Kernel:
    """One namespace that cells share.

    Args:
        files: what cells open.
        environment: their variables.
        saved: a namespace to begin with, from `dump`.
    """

    def __init__(
        self, files: FileSystem, environment: dict[str, str], *, saved: bytes = b""
    ) -> None:
        self._files = files
        self._environment = environment
        self._order = asyncio.Lock()
        self._cell: _Cell | None = None
        self._count = 0
        self._is_stopped = False
        self._reset()
        if saved:
            namespace.load(saved, self._namespace, self._view.named, self._view.module)

    def _reset(self) -> None:
        turn = self._turn = _Turn()

        def emit(kind: KernelEventKind, payload: bytes) -> None:
            if cell := self._cell_of(turn):
                cell.emit(kind, payload)

        def sleep(seconds: float) -> None:
            if cell := self._cell_of(turn):
                cell.sleep(seconds)

        self._view = CellView(self._files, self._environment, emit=emit, sleep=sleep)
        self._namespace: dict[str, Any] = {
            "__name__": "__main__",
            "__builtins__": self._view.builtins,
        }

    @contextlib.asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """No line of a cell runs inside the block.

        Raises:
            TimeoutError: a cell is stuck in one long call.
        """
        async with self._turn.taken():
            yield

    def dump(self) -> bytes:
        """The namespace as bytes. Preconditions: `standing_still`."""
        return namespace.dump(self._namespace, self._view.named)

    def stop(self) -> None:
        """Ends the running cell, without waiting for it."""
        self._is_stopped = True
        if self._cell is not None:
            self._cell.cancel()

    async def run(self, code: str, timeout_s: float | None, emit: Emit) -> int:
        """Runs a cell after those before it; returns its exit code.

        Args:
            code: Python source; the value of a last expression is the result.
            timeout_s: None for no deadline.
            emit: takes the events, the last one `DONE`.
        """
        async with self._order:
            cell = self._cell = _Cell(self._turn, timeout_s=timeout_s)
            self._count += 1
            thread = threading.Thread(
                target=self._run, args=(cell, code, self._count), name="fake-cell", daemon=True
            )
            thread.start()
            try:
                return await self._relay(cell, timeout_s, emit)
            finally:
                cell.cancel()
                await self._join(thread)

    async def _relay(self, cell: _Cell, timeout_s: float | None, emit: Emit) -> int:
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s + GRACE_S
        while True:
            left = None if ends_at is None else max(0.1, ends_at - time.monotonic())
            try:
                async with asyncio.timeout(left):
                    event = await cell.events.get()
            except TimeoutError:
                message = "the kernel was killed at the deadline and its state is lost"
                await emit(KernelEvent.error("TimeoutError", message))
                event = KernelEvent(KernelEventKind.DONE, b"\x01")
            cell.taken()
            await emit(event)
            if event.kind is KernelEventKind.DONE:
                return event.payload[0]

    async def _join(self, thread: threading.Thread) -> None:
        ends_at = time.monotonic() + GRACE_S
        while thread.is_alive() and not self._is_stopped and time.monotonic() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        if thread.is_alive():
            self._reset()

    # From here on in the cell's thread.

    def _run(self, cell: _Cell, code: str, number: int) -> None:
        turn, view, variables = self._turn, self._view, self._namespace

        def trace(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG001
            if frame.f_code.co_filename.startswith(_OWN_FOLDER):
                return None
            if frame.f_code.co_filename.startswith("<cell"):
                frame.f_trace_opcodes = True  # a loop on one line has no events of lines
            if turn.offer():
                cell.check()
            return trace

        with turn.held():
            failure: BaseException | None = None
            try:
                value, text = _evaluate(code, f"<cell {number}>", variables, trace)
                if value is not None:
                    variables["_"] = value
                    body = {"text": text, "data": {"text/plain": text}}
                    view.flush()
                    cell.emit(KernelEventKind.RESULT, json.dumps(body).encode())
            except BaseException as exc:  # noqa: BLE001  whatever the cell raises is its result
                failure = exc
            with contextlib.suppress(_Interrupt):
                view.flush()
        if cell.is_late:
            cell.post(_error("TimeoutError", "the cell was interrupted at its deadline", failure))
        elif failure is not None:
            cell.post(_error(type(failure).__name__, _message(failure), failure))
        exit_code = failure is not None or cell.is_late
        cell.post(KernelEvent(KernelEventKind.DONE, bytes([exit_code])))

    def _cell_of(self, turn: _Turn) -> _Cell | None:
        """The running cell; what is left of an abandoned one has none, and ends."""
        if turn is not self._turn:
            raise _Interrupt
        return self._cell


def _evaluate(code: str, name: str, variables: dict[str, Any], trace: Any) -> tuple[Any, str]:
    """Runs a cell; gives the value of its last expression and how it shows itself."""
    tree = ast.parse(code, name)
    is_silent = code.rstrip().endswith(";")
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not is_silent:
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    body = compile(tree, name, "exec", dont_inherit=True)
    sys.settrace(trace)
    try:
        exec(body, variables)  # noqa: S102  a cell is code
        if last is None:
            return None, ""
        value = eval(compile(last, name, "eval", dont_inherit=True), variables)  # noqa: S307
        return value, repr(value).encode("utf-8", "backslashreplace").decode()
    finally:
        sys.settrace(None)


def _message(failure: BaseException) -> str:
    try:
        return str(failure).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001  the cell's own method
        return "<the exception cannot be shown>"


def _error(name: str, value: str, failure: BaseException | None) -> KernelEvent:
    lines = list[str]()
    if failure is not None:
        shown = traceback.TracebackException.from_exception(failure)
        shown.stack[:] = [frame for frame in shown.stack if frame.filename.startswith("<cell")]
        lines = "".join(shown.format()).rstrip("\n").split("\n")
    body = {"name": name, "value": value, "traceback": lines}
    return KernelEvent(KernelEventKind.ERROR, json.dumps(body).encode())
