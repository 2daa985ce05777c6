"""Tracebacks as a user knows them: their lines, none of the kernel's."""

import os
import traceback

TRACEBACK_LIMIT = 2000

_KERNELS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


def message_of(error):
    try:
        return str(error)
    except Exception:
        return "<the exception cannot be shown>"


def traceback_lines(error):
    """The traceback as a user knows it: their lines, none of the kernel's."""
    try:
        shown = traceback.TracebackException(type(error), error, error.__traceback__)
    except Exception:
        return [type(error).__name__ + ": " + message_of(error)]
    hide_kernel_frames(shown, set())
    return "".join(shown.format()).rstrip("\n").split("\n")[-TRACEBACK_LIMIT:]


def hide_kernel_frames(shown, seen):
    if shown is None or id(shown) in seen:
        return
    seen.add(id(shown))
    if shown.stack:
        shown.stack[:] = [frame for frame in shown.stack if not frame.filename.startswith(_KERNELS)]
    hide_kernel_frames(shown.__cause__, seen)
    hide_kernel_frames(shown.__context__, seen)
