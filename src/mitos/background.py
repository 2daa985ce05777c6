"""Commands that run in the background, and outlive the connection that started them.

`BackgroundProcess` reads on a thread of its own, `AsyncBackgroundProcess` in a task of the running
loop.
"""

from __future__ import annotations

from mitos._sdk._async.background import AsyncBackgroundProcess
from mitos._sdk._sync.background import BackgroundProcess

__all__ = ["AsyncBackgroundProcess", "BackgroundProcess"]
