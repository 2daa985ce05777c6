"""What every run has: the lanes, and the signals of a program that a person starts."""

from __future__ import annotations

import signal

from tests.lanes import pytest_addoption, pytest_collection_modifyitems, pytest_configure

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

# A job in the background begins with these ignored, and so would each process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
