"""The kernel itself: takes cells from the agent, runs them, and answers."""

import ast
import builtins
import fcntl
import linecache
import os
import struct
import sys
import time
import types

from . import _display, _fork
from ._figure import is_figure
from ._import import ImportHook
from ._input import ClosedInput, no_input, system
from ._interrupt import Interrupts
from ._link import (
    CELL,
    DONE,
    ENVIRONMENT,
    ERROR,
    MESSAGE_LIMIT,
    READY,
    RESEED,
    RESEEDED,
    RESULT,
    STDERR,
    STDOUT,
    Link,
    clean,
    encode_json,
)
from ._mime import as_bundle, mime_bundle
from ._output import Output, text_stream, write_all
from ._traceback import message_of, traceback_lines

TIMEOUT = struct.Struct("!I")
CO_COROUTINE = 0x80  # inspect.CO_COROUTINE, without its imports
TEXT_LIMIT = 1 << 20
INTERRUPTED = "the cell was interrupted at its deadline; its state is kept"


class Kernel:
    """The state that lives from cell to cell."""

    def __init__(self, link, interrupts, output):
        self._link = link
        self._interrupts = interrupts
        self._output = output
        self._count = 0
        self._loop = None
        self._shown = set()
        self._notes = ""  # shown on the error output of the next cell
        self._late_at = None  # from here on an interrupt is the agent's, at the deadline
        self.main = types.ModuleType("__main__")

    def install(self):
        """Makes this process look like an ordinary interpreter to the code in cells."""
        self._kernel_module = sys.modules["__main__"]  # kept: its globals are this program
        sys.modules["__main__"] = self.main
        sys.argv = [""]
        sys.path[0] = ""
        sys.stdin = sys.__stdin__ = ClosedInput()
        sys.stdout = sys.__stdout__ = text_stream(self._output, STDOUT)
        sys.stderr = sys.__stderr__ = text_stream(self._output, STDERR)
        builtins.input = no_input
        builtins.display = self.display
        os.system = system
        os.environ.setdefault("MPLBACKEND", "Agg")
        ImportHook("matplotlib.pyplot", self._take_show).install()
        _display.install(self.display)

    def _take_show(self, pyplot):
        def show(*_args, **_options):  # a function: pyplot sets attributes of it
            """Shows and closes every open figure."""
            self.show_figures()

        pyplot.show = show

    def display(self, *values, raw=False, **_options):
        """Shows values in their richest form; `raw` ones are forms by MIME type already."""
        for value in values:
            self._emit("", as_bundle(value) if raw else mime_bundle(value))
            if is_figure(value):
                self._shown.add(id(value))

    def show_figures(self):
        """Shows and closes every open figure; at the end of a cell, those that are still open."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None or not hasattr(pyplot, "get_fignums"):
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if id(figure) not in self._shown:
                    self._emit("", mime_bundle(figure))
        finally:
            pyplot.close("all")

    def run_cell(self, source, timeout_s):
        self._count += 1
        self._shown.clear()
        name = "<cell %d>" % self._count
        self._late_at = (
            time.monotonic() + timeout_s - min(timeout_s / 2, 0.5) if timeout_s else None
        )
        try:
            failure = self._attempt(source, name)
        except KeyboardInterrupt as error:  # the signal came while another exception was handled
            self._interrupts.end()
            failure = error
        if self._output.forked:
            self._output.flush()
            leave_fork(failure)
        return self._finish(failure)

    def _attempt(self, source, name):
        """Runs the cell; returns what it raised, or None."""
        try:
            self._interrupts.begin()
            self._show_notes()
            self._execute(source, name)
            self.show_figures()
        except BaseException as error:
            self._interrupts.end()
            return error
        self._interrupts.end()
        return None

    def _show_notes(self):
        notes, self._notes = self._notes, ""
        if notes:
            self._output.write(STDERR, notes.encode("utf-8", "backslashreplace"))

    def _finish(self, failure):
        """Reports how the cell ended; returns its exit code."""
        late = self._late_at is not None and time.monotonic() >= self._late_at
        try:
            self._flush_streams()
            if self._interrupts.requested and late:
                self._send_error("TimeoutError", INTERRUPTED, failure)
            elif failure is not None:
                self._send_error(type(failure).__name__, message_of(failure), failure)
                self._forget_figures()
            else:
                return 0
        except Exception as error:
            self._send_error(type(error).__name__, message_of(error), None)
        return 1

    def _flush_streams(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        self._output.flush()

    def _forget_figures(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None and hasattr(pyplot, "close"):
            pyplot.close("all")

    def _send_error(self, name, value, failure):
        lines = [] if failure is None else traceback_lines(failure)
        body = {
            "name": name,
            "value": clean(value[:TEXT_LIMIT]),
            "traceback": [clean(line[:TEXT_LIMIT]) for line in lines],
        }
        self._output.send(ERROR, encode_json(body))

    def _execute(self, source, name):
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(source, name, "exec", flags, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
            last = ast.Expression(tree.body.pop().value)
        if tree.body:
            self._evaluate(tree, name, "exec")
        if last is None:
            return
        value = self._evaluate(last, name, "eval")
        if value is not None:
            self.main.__dict__["_"] = value
            self._emit_value(value)

    def _evaluate(self, tree, name, mode):
        code = compile(tree, name, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        value = eval(code, self.main.__dict__)
        return self._await(value) if code.co_flags & CO_COROUTINE else value

    def _await(self, coroutine):
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                try:
                    self._loop.run_until_complete(task)
                except BaseException:
                    pass
            raise

    def _emit_value(self, value):
        text = clean(repr(value))
        self._emit(text, mime_bundle(value, text))
        if is_figure(value):
            self._shown.add(id(value))

    def _emit(self, text, bundle):
        payload = encode_json({"text": text, "data": bundle})
        if len(payload) > MESSAGE_LIMIT:
            raise KernelOutputTooLarge(
                "one output of the cell is over %d MiB" % (MESSAGE_LIMIT >> 20)
            )
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        self._output.send(RESULT, payload)

    def change_environment(self, payload):
        for variable in payload.split(b"\0"):
            name, equals, value = variable.partition(b"=")
            if name and equals:
                os.environb[name] = value

    def serve(self):
        self._link.send(READY)
        while True:
            kind, payload = self._link.receive()
            if kind == CELL:
                (timeout_ms,) = TIMEOUT.unpack_from(payload)
                source = payload[TIMEOUT.size :].decode("utf-8", "replace")
                self._output.send(DONE, bytes([self.run_cell(source, timeout_ms / 1000)]))
            elif kind == RESEED:
                self._notes += _fork.apply(payload[:-1], forked=payload[-1] == 1)
                self._link.send(RESEEDED)
            elif kind == ENVIRONMENT:
                self.change_environment(payload)


class KernelOutputTooLarge(Exception):
    """One event is over what the link carries."""


def leave_fork(failure):
    """Ends a process that a cell forked off and that ran to the cell's end."""
    code = 0
    if isinstance(failure, SystemExit):
        code = failure.code if isinstance(failure.code, int) else int(failure.code is not None)
    elif failure is not None:
        write_all(2, "\n".join(traceback_lines(failure)).encode("utf-8", "replace") + b"\n")
        code = 1
    os._exit(code & 0xFF)


def move_up(descriptor):
    """The link leaves the low numbers, where a cell might close it by accident."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(descriptor)
    return moved


def main():
    link = Link(move_up(3))
    interrupts = Interrupts()
    kernel = Kernel(link, interrupts, Output(link, interrupts))
    kernel.install()
    kernel.serve()
