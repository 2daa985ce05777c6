"""What a server's process holds, and whether it has let go of what a test made it take."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from pathlib import Path

from tests.server.serving import Server

DEADLINE_S = 20.0


def held(server: Server) -> Counter[str]:
    """Tasks of the server's loop, and descriptors of the process, by what they are."""

    async def tasks() -> list[str]:
        return [repr(task.get_coro()) for task in asyncio.all_tasks()]

    found = Counter(re.sub(r" at 0x[0-9a-f]+|, cr_[^>]*", "", task) for task in server.run(tasks()))
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(entry.readlink()).startswith("user:"):
                continue  # a few namespaces are kept for the next sandboxes
            found[re.sub(r"mt-[0-9a-f]+|\d+", "N", str(entry.readlink()))] += 1
    return found


def wait_for_rest(server: Server, before: Counter[str]) -> None:
    """Waits until nothing is held that was not held before."""
    deadline = time.monotonic() + DEADLINE_S
    while (left := held(server) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, dict(left)
