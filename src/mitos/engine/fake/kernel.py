"""The fake guest's code kernel: cells in a namespace of this process.

It isolates nothing and is never used where cells are not the tests' own.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import sys
import time
import traceback
from types import FrameType, ModuleType
from typing import Any

from mitos.wire.link import KernelEvent, KernelEventKind

__all__ = ["Kernel"]


class Kernel:
    """One namespace that cells share."""

    def __init__(self, namespace: dict[str, Any] | None = None) -> None:
        self._namespace = namespace if namespace is not None else {"__name__": "__main__"}

    def copy(self) -> Kernel:
        """An independent copy: values are copied, modules and what cannot be copied are shared."""
        return Kernel({name: _copied(value) for name, value in self._namespace.items()})

    def run(self, code: str, timeout_s: float | None) -> list[KernelEvent]:
        """Runs a cell in the calling thread; returns its events, the last one `DONE`."""
        out, err, events = io.StringIO(), io.StringIO(), list[KernelEvent]()
        failure: KernelEvent | None = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _deadline(timeout_s):
            try:
                value = self._evaluate(code)
            except BaseException as exc:  # noqa: BLE001  whatever the cell raises is its result
                failure, value = _error(exc), None
        for kind, text in ((KernelEventKind.STDOUT, out), (KernelEventKind.STDERR, err)):
            if text.getvalue():
                events.append(KernelEvent(kind, text.getvalue().encode()))
        if value is not None:
            body = {"text": repr(value), "data": {"text/plain": repr(value)}}
            events.append(KernelEvent(KernelEventKind.RESULT, json.dumps(body).encode()))
        if failure is not None:
            events.append(failure)
        return [*events, KernelEvent(KernelEventKind.DONE, bytes([failure is not None]))]

    def _evaluate(self, code: str) -> Any:
        tree = ast.parse(code, "<cell>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), self._namespace)  # noqa: S102  a cell is code
        if not isinstance(last, ast.Expr):
            return None
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), self._namespace)  # noqa: S307


def _copied(value: Any) -> Any:
    if isinstance(value, ModuleType):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  what cannot be copied is shared
        return value


@contextlib.contextmanager
def _deadline(timeout_s: float | None) -> Any:
    """Raises `TimeoutError` between two lines of the cell once the time is up."""
    if timeout_s is None:
        yield
        return
    ends_at = time.monotonic() + timeout_s

    def trace(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG001
        if time.monotonic() > ends_at:
            raise TimeoutError(f"the cell did not end within {timeout_s:g} s")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def _error(exc: BaseException) -> KernelEvent:
    lines = traceback.format_exception_only(type(exc), exc)
    body = {"name": type(exc).__name__, "value": str(exc), "traceback": lines}
    return KernelEvent(KernelEventKind.ERROR, json.dumps(body).encode())
