"""Breaking a connection from outside of its reader."""

from __future__ import annotations

import contextlib
import socket

import httpx

__all__ = ["hang_up"]


def hang_up(response: httpx.Response) -> None:
    """Breaks an answer's connection: who reads it, in whichever thread or task, fails at once.

    Closing it would not wake a thread that waits for more; its owner still has to.
    """
    stream = response.extensions.get("network_stream")
    found = None if stream is None else stream.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
