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
import statistics
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from baseline import RunscCommandLine
from operations import Timings, measure_fork, measure_life

from mitos.engine.gvisor import program
from server import machine, own_server, settle

FORKS = (1, 4, 16)


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


def run(url: str, runsc: RunscCommandLine, rounds: int, say: Callable[[str], None]) -> str:
    ours, base = Timings(), Timings()
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        measure_life(ours, url)
        settle(url, 0.5)
        measure_baseline(base, runsc)
    for count in FORKS:
        fork_rounds = max(3, rounds // (2 if count > 4 else 1))
        for number in range(1, fork_rounds + 1):
            say(f"fork into {count}, round {number} of {fork_rounds}")
            measure_fork(ours, url, count)
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
        runsc = stack.enter_context(RunscCommandLine(program.find(options.home), rootfs, guest))
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
