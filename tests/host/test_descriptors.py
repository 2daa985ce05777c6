"""Whether descriptors are left, on a process of its own whose limit is low."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource
from mitos.host import descriptors

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
used = len(os.listdir("/proc/self/fd")) - 1
free = 200 - used
opened = {opened}
kept = [os.dup(0) for _ in range(free if opened == "all" else opened)]
for descriptor in kept[:{closed}]:
    os.close(descriptor)
left = 200 - used - len(kept) + {closed}
print(left, *(descriptors.has_room(count) for count in (1, 5, left - 1, left + 1, 1000)))
"""


@pytest.mark.parametrize(
    ("opened", "closed", "expected"),
    [
        ("0", 0, "True True True False False"),
        ("100", 0, "True True True False False"),
        ('"all"', 40, "True True True False False"),
        ('"all"', 4, "True False True False False"),
        ('"all"', 0, "False False True False False"),
    ],
)
def test_room_is_what_the_limit_leaves(opened: str, closed: int, expected: str) -> None:
    program = PROGRAM.format(opened=opened, closed=closed)
    argv = [sys.executable, "-c", program]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)

    left, found = ended.stdout.strip().split(" ", 1)
    assert int(left) >= closed
    assert found == expected
