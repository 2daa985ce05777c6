"""How long a sandbox takes: create to first exec, exec round trip, live fork to first exec.

    bench/lifecycle.py [--rounds 20] [--url URL] [--record FILE]

Starts its own server unless `--url` names one. Beside each figure stands a baseline of the same
run: the `runsc` command line doing the same by hand. Rounds alternate between the two, so that both
see the same machine. Prints a table of p50 and p95 in milliseconds and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from baseline import RunscCommandLine

import mitos
from mitos.engine.gvisor.install import runsc_path

FORKS = (1, 4, 16)
START_DEADLINE_S = 900


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


def measure_mitos(timings: Timings, url: str) -> None:
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


def measure_mitos_fork(timings: Timings, url: str, count: int) -> None:
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


def measure_baseline(timings: Timings, runsc: RunscCommandLine) -> None:
    with timings.measure("create to first exec"):
        name = runsc.run()
        runsc.exec(name)
    for _ in range(5):
        with timings.measure("exec round trip"):
            runsc.exec(name)
    with timings.measure("pause"):
        runsc.pause(name)
    with timings.measure("resume to next exec"):
        runsc.resume(name)
        runsc.exec(name)
    with timings.measure("hibernate, wake and next exec"):
        woken = runsc.fork_and_exec(name, 1)
    runsc.remove(name, *woken)


def measure_baseline_fork(timings: Timings, runsc: RunscCommandLine, count: int) -> None:
    name = runsc.run()
    runsc.exec(name)
    with timings.measure(f"live fork, n = {count}, to first exec in all"):
        children = runsc.fork_and_exec(name, count)
    runsc.remove(name, *children)


def settle(url: str, seconds: float) -> None:
    """Lets the server refill its pool: users are not faster than it for long."""
    mitos.SandboxServer(url).health()
    time.sleep(seconds)


def run(url: str, runsc: RunscCommandLine, rounds: int, say: Callable[[str], None]) -> str:
    ours, base = Timings(), Timings()
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        measure_mitos(ours, url)
        settle(url, 0.5)
        measure_baseline(base, runsc)
    for count in FORKS:
        fork_rounds = max(3, rounds // (2 if count > 4 else 1))
        for number in range(1, fork_rounds + 1):
            say(f"fork into {count}, round {number} of {fork_rounds}")
            measure_mitos_fork(ours, url, count)
            settle(url, 0.5 + 0.25 * count)
            measure_baseline_fork(base, runsc, count)
    return table(ours, base)


def table(ours: Timings, base: Timings) -> str:
    """Markdown, milliseconds."""
    rows = [
        "| what | rounds | mitos p50 | mitos p95 | runsc p50 | runsc p95 | runsc / mitos (p50) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, samples in ours.samples_ms.items():
        other = base.samples_ms[name]
        p50, p95, b50, b95 = (f(x) for x in (samples, other) for f in (statistics.median, p95_of))
        rows.append(
            f"| {name} | {len(samples)} | {p50:.1f} | {p95:.1f} | {b50:.1f} | {b95:.1f}"
            f" | {b50 / p50:.1f} |"
        )
    return "\n".join(rows)


def p95_of(samples: list[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


@contextlib.contextmanager
def own_server(home: Path) -> Iterator[str]:
    """A server for this run alone, on a free port."""
    with tempfile.TemporaryDirectory() as work:
        port_file = Path(work, "port")
        argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--addr", "127.0.0.1:0"]
        argv += ["--home", str(home), "--port-file", str(port_file), "--prepare", "python"]
        with Path(work, "log").open("wb") as log, subprocess.Popen(argv, stderr=log) as process:
            try:
                deadline = time.monotonic() + START_DEADLINE_S
                while not (port_file.exists() and port_file.read_text().strip()):
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"the server did not start:\n{Path(work, 'log').read_text()}")
                    time.sleep(0.05)
                yield f"http://127.0.0.1:{port_file.read_text().strip()}"
            finally:
                process.terminate()


def machine() -> str:
    """The machine in one line, for the record."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = f"Linux {platform.release()}, {platform.machine()}"
    return f"{os.cpu_count()} CPUs, {memory_gib:.0f} GiB, {kernel}"


def newest(folder: Path) -> Path:
    return max((p for p in folder.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("MITOS_HOME", "/var/lib/mitos"))
    )
    parser.add_argument("--record", type=Path, help="also write the table to this file")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(own_server(options.home))
        settle(url, 2.0)
        rootfs = newest(options.home / "rootfs")
        guest = newest(options.home / "guest")
        runsc = stack.enter_context(RunscCommandLine(runsc_path(options.home), rootfs, guest))
        result = run(url, runsc, options.rounds, say)
    print(result)
    if options.record:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        heading = (
            f"# Lifecycle\n\n`bench/lifecycle.py --rounds {options.rounds}`, {date}. {machine()}.\n"
        )
        note = "Milliseconds. Baseline: the `runsc` command line in the same run.\n"
        options.record.write_text(f"{heading}{note}\n{result}\n")


if __name__ == "__main__":
    main()
