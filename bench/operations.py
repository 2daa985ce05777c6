"""What the benchmarks time, through the public SDK alone: any version of it can run this file."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import mitos

STREAMS = 50
STREAMS_PER_SANDBOX = 13
"""The server lets a sandbox have 16 at once."""

STREAM_BYTES = 1_000_000


class Timings:
    """Durations by what was done."""

    def __init__(self) -> None:
        self.samples_ms: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Times the block; a block that raises is not counted."""
        started = time.perf_counter()
        yield
        self.samples_ms[name].append((time.perf_counter() - started) * 1000)


def measure_life(timings: Timings, url: str) -> None:
    with timings.measure("create to first exec"):
        sandbox = mitos.create("python", base_url=url, api_key="")
        first_exec(sandbox)
    for _ in range(5):
        with timings.measure("exec round trip"):
            first_exec(sandbox)
    with timings.measure("pause"):
        sandbox.pause()
    with timings.measure("resume to next exec"):
        sandbox.resume()
        first_exec(sandbox)
    with timings.measure("hibernate, wake and next exec"):
        sandbox.hibernate()
        first_exec(sandbox)
    sandbox.terminate()


def measure_fork(timings: Timings, url: str, count: int) -> None:
    sandbox = mitos.create("python", base_url=url, api_key="")
    first_exec(sandbox)
    with timings.measure(f"live fork, n = {count}, to first exec in all"):
        children = sandbox.fork(count)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(first_exec, children))
    for each in [*children, sandbox]:
        each.terminate()


def first_exec(sandbox: mitos.DirectSandbox) -> None:
    assert sandbox.exec("echo hello").stdout == "hello\n"


MANY_FILES = 20_000
WALKED_FILES = 10_000

_MAKE_FILES = f"""
import os
for folder in range(20):
    os.makedirs(f"/workspace/{{folder}}")
    for file in range({MANY_FILES} // 20):
        with open(f"/workspace/{{folder}}/{{file}}", "w") as stream:
            stream.write("x" * 500)
"""

# The longest time in which a loop that sleeps for a millisecond did not get round.
_STAND_STILL = """
import pathlib, time
worst, last = 0, time.monotonic()
while not pathlib.Path("/tmp/enough").exists():
    time.sleep(0.001)
    worst, last = max(worst, time.monotonic() - last), time.monotonic()
print(worst)
"""

_WALK = f"""
import itertools, os, time
def files(folder):
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.path
paths = list(itertools.islice(files("/usr"), {WALKED_FILES}))  # by their names alone
began = time.monotonic()
for path in paths:
    os.close(os.open(path, os.O_RDONLY))
    os.stat(path)
print((time.monotonic() - began) / len(paths))
"""


def measure_many_files(timings: Timings, url: str) -> None:
    """A fork of a sandbox that has made 20,000 small files, and how long its source stood still."""
    with mitos.create("python", base_url=url, api_key="") as sandbox:
        assert sandbox.exec(f"python3 -c '{_MAKE_FILES}'", timeout=300).exit_code == 0
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(sandbox.exec, f"python3 -c '{_STAND_STILL}'", timeout=120)
            time.sleep(1)
            with timings.measure(f"fork(1) with {MANY_FILES:,} small files"):
                (child,) = sandbox.fork(1)
                first_exec(child)
            child.terminate()
            sandbox.files.write("/tmp/enough", b"")
            still_s = float(watching.result().stdout)
    timings.samples_ms["its source stands still"].append(still_s * 1000)


def measure_walk(timings: Timings, url: str) -> None:
    """Opens and stats files of the root filesystem, in a fresh sandbox."""
    with mitos.create("python", base_url=url, api_key="") as sandbox:
        ended = sandbox.exec(f"python3 -c '{_WALK}'", timeout=120)
        assert ended.exit_code == 0, ended.stderr
    timings.samples_ms["open and stat a file of the root, x 1,000"].append(
        float(ended.stdout) * 1_000_000
    )


def measure_streams(timings: Timings, url: str, rounds: int) -> float:
    """Fifty commands at once, each with a megabyte of output; returns the seconds of all."""
    sandboxes = [
        mitos.create("python", base_url=url, api_key="")
        for _ in range(-(-STREAMS // STREAMS_PER_SANDBOX))
    ]

    def stream(number: int) -> None:
        with timings.measure(f"{STREAMS} streams at once, 1 MB each"):
            sandbox = sandboxes[number % len(sandboxes)]
            assert len(sandbox.exec(f"head -c {STREAM_BYTES} /dev/zero").stdout) == STREAM_BYTES

    started = time.perf_counter()
    with ThreadPoolExecutor(STREAMS) as pool:
        for _ in range(rounds):
            list(pool.map(stream, range(STREAMS)))
    seconds = time.perf_counter() - started
    for sandbox in sandboxes:
        sandbox.terminate()
    return seconds
