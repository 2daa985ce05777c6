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
