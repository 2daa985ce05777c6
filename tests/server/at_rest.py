"""What a server holds, and whether it has let go of what a test made it take.

Servers of other tests live in this process too, so a descriptor counts only when it is known to be
this server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.server.serving import Server

DEADLINE_S = 20.0
QUIET_S = 0.7
"""Longer than a pool waits before it fills."""

_DESCRIPTORS = Path("/proc/self/fd")


def settled(server: Server) -> Counter[str]:
    """What it holds once that does not change any more: pools fill, sandboxes begin to listen."""
    deadline, last, since = time.monotonic() + DEADLINE_S, Counter[str](), 0.0
    while (now := time.monotonic()) < deadline:
        found = held(server)
        if found != last:
            last, since = found, now
        elif now - since > QUIET_S:
            return found
        time.sleep(0.05)
    raise AssertionError("the server does not come to rest")


def held(server: Server) -> Counter[str]:
    """Tasks of the server's loop, and its descriptors, by what they are."""

    async def tasks() -> list[str]:
        return [repr(task.get_coro()) for task in asyncio.all_tasks()]

    found = Counter(re.sub(r" at 0x[0-9a-f]+|, cr_[^>]*", "", task) for task in server.run(tasks()))
    return found + Counter(_descriptors(server))


def wait_for_rest(server: Server, before: Counter[str]) -> None:
    """Waits until nothing is held that was not held before."""
    deadline = time.monotonic() + DEADLINE_S
    while (left := held(server) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, dict(left)


def _descriptors(server: Server) -> Iterator[str]:
    """Files in its folder, its connections, and the processes of its machines."""
    folder = str(server.node.settings.home.parent)
    connections = set(_connections(server.port))
    for entry in _DESCRIPTORS.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            target = str(entry.readlink())
            if target.startswith(folder):
                yield re.sub(r"mt-[0-9a-f]+|\d+", "N", target)
            elif target in connections:
                yield "connection"
            elif target == "anon_inode:[pidfd]" and _is_of(folder, entry.name):
                yield "process"


def _connections(port: int) -> Iterator[str]:
    """The server's ends of connections, as `/proc` names them."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            yield f"socket:[{fields[9]}]"


def _is_of(folder: str, descriptor: str) -> bool:
    """True for a pidfd of a process that works in the folder, or has ended."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    (pid,) = re.findall(r"^Pid:\s*(-?\d+)", text, re.MULTILINE)
    return int(pid) < 0 or folder.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
