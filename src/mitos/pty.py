"""Terminals of a sandbox, over a WebSocket.

`PtyHandle` reads on a thread of its own, `AsyncPtyHandle` in a task of the running loop. A server
that only knows the older route, `/v1/pty`, is served too. Redirects are not followed: they would
carry the key to another origin.
"""

from __future__ import annotations

from mitos._sdk._async.pty import AsyncPtyHandle
from mitos._sdk._sync.pty import PtyHandle

__all__ = ["AsyncPtyHandle", "PtyHandle"]
