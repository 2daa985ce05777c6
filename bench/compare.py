"""Two versions against each other: lifecycle and runtime, in alternating pairs on one machine.

    bench/compare.py CHECKOUT [--pairs 20] [--only WORK ...] [--record FILE]

CHECKOUT is another checkout of this repository, installed by its `scripts/install`: the version
before. Each version has a server and a client of its own, and both stay up. In a pair both do the
same, work by work, and who begins alternates. Prints the median of the pairs' ratios (after by
before) with its 95 % interval: order statistics of the sign test, so no shape of the noise is
assumed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from operations import (
    STREAMS,
    Timings,
    measure_fork,
    measure_life,
    measure_many_files,
    measure_streams,
    measure_walk,
)

import mitos
from server import machine, own_server, settle

Work = Callable[[Timings, str], None]
Measure = Callable[[str], dict[str, float]]

FILE_MIB = 32
CONFIDENCE = 0.95


def lives(timings: Timings, url: str) -> None:
    for _ in range(5):
        measure_life(timings, url)
        settle(url, 0.3)


def forks(count: int, times: int) -> Work:
    def work(timings: Timings, url: str) -> None:
        for _ in range(times):
            measure_fork(timings, url, count)
            settle(url, 0.3 + 0.2 * count)

    return work


def calls(timings: Timings, url: str) -> None:
    with mitos.create("python", base_url=url, api_key="") as sandbox:
        sandbox.run_code("1")
        for _ in range(40):
            with timings.measure("exec"):
                assert sandbox.exec("true").exit_code == 0
            with timings.measure("run_code"):
                assert sandbox.run_code("1").text == "1"


def files(timings: Timings, url: str) -> None:
    content = os.urandom(FILE_MIB << 20)
    with mitos.create("python", base_url=url, api_key="") as sandbox:
        for _ in range(3):
            with timings.measure(f"write a file of {FILE_MIB} MiB"):
                sandbox.files.write("/tmp/content", content)
            with timings.measure(f"read a file of {FILE_MIB} MiB"):
                assert sandbox.files.read_bytes("/tmp/content") == content


def streams(timings: Timings, url: str) -> None:
    seconds = measure_streams(Timings(), url, 1)
    timings.samples_ms[f"{STREAMS} streams, 1 MB each, all"].append(seconds * 1000)


WORK: dict[str, Work] = {
    "lives": lives,
    "forks into 1": forks(1, 4),
    "forks into 4": forks(4, 2),
    "forks into 16": forks(16, 1),
    "calls": calls,
    "files": files,
    "streams": streams,
    "many files": measure_many_files,
    "walk": measure_walk,
}
"""What a pair consists of. Both versions do one before either does the next."""


def serve(url: str) -> None:
    """The client of one version: a name on stdin is answered with its figures, medians in ms."""
    for name in sys.stdin:
        timings = Timings()
        WORK[name.strip()](timings, url)
        settle(url, 0.5)
        medians = {what: statistics.median(taken) for what, taken in timings.samples_ms.items()}
        print(json.dumps(medians), flush=True)


@contextlib.contextmanager
def version(checkout: Path, installed: Path, work: Path) -> Iterator[Measure]:
    """A server and a client of a checkout; yields what measures a work by its name.

    The server has a home of its own, with the binaries of the one that is installed.
    """
    python = str(checkout.absolute() / ".venv" / "bin" / "python")
    work.mkdir()
    (work / "bin").symlink_to(installed / "bin")
    with own_server(work, python) as url:
        argv = [python, __file__, "--client", url]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as client:
            ends, answers = client.stdin, client.stdout
            assert ends is not None
            assert answers is not None

            def measure(name: str) -> dict[str, float]:
                ends.write(f"{name}\n")
                ends.flush()
                line = answers.readline()
                if not line:
                    sys.exit(f"the client of {checkout} failed")
                figures: dict[str, float] = json.loads(line)
                return figures

            try:
                yield measure
            finally:
                ends.close()


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median at `CONFIDENCE` or more.

    Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
    """
    ordered, n = sorted(ratios), len(ratios)
    tail, skip = 0.0, 0
    while (tail := tail + math.comb(n, skip) / 2**n) <= (1 - CONFIDENCE) / 2:
        skip += 1
    low = max(0, skip - 1)
    return ordered[low], ordered[n - 1 - low]


def table(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> str:
    """Markdown, milliseconds."""
    rows = [
        "| what | before, p50 | after, p50 | after / before | 95 % interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in before[0]:
        old, new = ([figures[name] for figures in rounds] for rounds in (before, after))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        low, high = interval(ratios)
        rows.append(
            f"| {name} | {statistics.median(old):.1f} | {statistics.median(new):.1f}"
            f" | {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} |"
        )
    return "\n".join(rows)


def compare(checkout: Path, installed: Path, pairs: int, works: Sequence[str]) -> str:
    here = Path(__file__).parents[1]
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitos-bench-")))
        versions = [
            stack.enter_context(version(checkout, installed, work / "before")),
            stack.enter_context(version(here, installed, work / "after")),
        ]
        figures: list[list[dict[str, float]]] = [[], []]
        for number in range(pairs + 1):
            print(f"pair {number} of {pairs}", file=sys.stderr, flush=True)
            found: list[dict[str, float]] = [{}, {}]
            for name in works:
                for each in (0, 1) if number % 2 else (1, 0):
                    found[each] |= versions[each](name)
            if number:  # The first warms both up.
                figures[0].append(found[0])
                figures[1].append(found[1])
        return table(*figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, nargs="?", help="the version before")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument(
        "--only", nargs="+", choices=WORK, default=list(WORK), metavar="WORK", help=", ".join(WORK)
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("MITOS_HOME", "/var/lib/mitos")),
        help="where scripts/install put the engine",
    )
    parser.add_argument("--record", type=Path, help="also write the table to this file")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        serve(options.client)
        return
    if options.checkout is None:
        parser.error("name the checkout to compare with")
    result = compare(options.checkout, options.home, options.pairs, options.only)
    print(result)
    if options.record:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        heading = f"# Before and after\n\n`bench/compare.py --pairs {options.pairs}`, {date}. "
        options.record.write_text(f"{heading}{machine()}.\nMilliseconds.\n\n{result}\n")


if __name__ == "__main__":
    main()
