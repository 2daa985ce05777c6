"""What a running sandbox costs: commands, cells, files, and many streams at once.

    bench/runtime.py [--rounds 200] [--home FOLDER] [--record FILE]

Starts a server of its own. The baseline of a command is the same command, spawned and waited for by
a Python program inside the same sandbox: what no server can be faster than. Rounds of the two
alternate. Prints p50, p95 and p99 in milliseconds, and throughput with the server's peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from operations import STREAM_BYTES, STREAMS, Timings, measure_streams

import mitos
from server import machine, own_server, settle

BATCH = 10
FILE_MIB = 64
FILE_ROUNDS = 5

BARE_SPAWN = f"""
import os, time
took = []
for _ in range({BATCH}):
    start = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ), 0)
    took.append((time.perf_counter() - start) * 1000)
took
"""


def measure_calls(timings: Timings, url: str, rounds: int, say: Callable[[str], None]) -> None:
    """Commands against spawns inside, and cells."""
    with mitos.create("python", base_url=url, api_key="") as sandbox:
        sandbox.run_code("1")
        for number in range(1, rounds // BATCH + 1):
            say(f"calls, batch {number} of {rounds // BATCH}")
            bare = sandbox.run_code(BARE_SPAWN).text or "[]"
            took_ms = [float(text) for text in bare.strip("[]").split(",")]
            timings.samples_ms["bare spawn inside"] += took_ms
            for _ in range(BATCH):
                with timings.measure("exec"):
                    assert sandbox.exec("true").exit_code == 0
            for _ in range(BATCH):
                with timings.measure("run_code"):
                    assert sandbox.run_code("1").text == "1"


def measure_files(url: str) -> list[str]:
    """Throughput both ways, and how much memory the server took for it: rows of a table."""
    content = os.urandom(FILE_MIB << 20)
    rows = []
    with mitos.create("python", base_url=url, api_key="") as sandbox:

        def write() -> None:
            sandbox.files.write("/tmp/content", content)

        def read() -> None:
            assert sandbox.files.read_bytes("/tmp/content") == content

        for name, move in (("write", write), ("read", read)):
            resting_mib = reset_peak_mib()
            rates = []
            for _ in range(FILE_ROUNDS):
                started = time.perf_counter()
                move()
                rates.append(FILE_MIB / (time.perf_counter() - started))
            grown_mib = peak_mib() - resting_mib
            median, worst = statistics.median(rates), min(rates)
            rows.append(
                f"| {name} a file of {FILE_MIB} MiB | {FILE_ROUNDS} | {median:.0f} | {worst:.0f}"
                f" | {resting_mib:.0f} | {grown_mib:.0f} |"
            )
    return rows


def server_pid() -> int:
    """The server is the one child of this process."""
    for task in Path("/proc/self/task").iterdir():
        if children := (task / "children").read_text().split():
            return int(children[0])
    raise LookupError("no server runs")


def reset_peak_mib() -> float:
    """Forgets the server's peak; returns its memory now."""
    Path(f"/proc/{server_pid()}/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """The most memory the server had since the peak was forgotten."""
    status = Path(f"/proc/{server_pid()}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def percentile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(url: str, rounds: int, say: Callable[[str], None]) -> str:
    timings = Timings()
    measure_calls(timings, url, rounds, say)
    say("files")
    files = measure_files(url)
    settle(url, 1.0)
    say("streams")
    stream_rounds = max(1, rounds // 50)
    seconds = measure_streams(timings, url, stream_rounds)
    rate = stream_rounds * STREAMS * STREAM_BYTES / 1e6 / seconds
    return "\n".join(
        [*table(timings), "", f"All streams together: {rate:.0f} MB/s.", "", *FILES, *files]
    )


FILES = [
    "| what | rounds | MiB/s, median | slowest | server before, MiB | its peak grows by, MiB |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
]


def table(timings: Timings) -> list[str]:
    """Markdown, milliseconds."""
    bare = statistics.median(timings.samples_ms["bare spawn inside"])
    rows = [
        "| what | rounds | p50 | p95 | p99 | / bare spawn (p50) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, samples in timings.samples_ms.items():
        p50, p95, p99 = (percentile(samples, share) for share in (0.5, 0.95, 0.99))
        rows.append(
            f"| {name} | {len(samples)} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {p50 / bare:.1f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("MITOS_HOME", "/var/lib/mitos"))
    )
    parser.add_argument("--record", type=Path, help="also write the tables to this file")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(own_server(options.home))
        settle(url, 2.0)
        result = run(url, options.rounds, say)
    print(result)
    if options.record:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        heading = (
            f"# Runtime\n\n`bench/runtime.py --rounds {options.rounds}`, {date}. {machine()}.\n"
        )
        load = f"Load average when it ended: {os.getloadavg()[1]:.0f}.\n"
        note = (
            f"{load}Milliseconds. Bare spawn: `/bin/sh -c true` from Python inside the sandbox.\n"
        )
        options.record.write_text(f"{heading}{note}\n{result}\n")


if __name__ == "__main__":
    main()
