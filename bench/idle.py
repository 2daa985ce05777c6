"""What sandboxes cost that do nothing: CPU, and the memory of a clone.

    bench/idle.py [--checkout CHECKOUT] [--counts 1 100] [--record FILE]

Starts a server of the checkout (this one by default), makes sandboxes, runs a command in each, and
leaves them alone. CPU is what the control groups of all sandboxes used over 30 s, in percent of one
core. Memory is of a fork of an idle sandbox: PSS, and what is its alone, over its processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from operations import first_exec

import mitos
from mitos.engine.gvisor.engine import group_of
from mitos.host import cgroup, process
from server import machine, own_server

QUIET_S = 60
"""Longer than what a burst of work leaves behind takes to be given back."""

WATCHED_S = 30
CLONES = 5
_KIB_PER_MB = 1000 / 1.024


def run(url: str, home: Path, counts: list[int]) -> Iterator[str]:
    """Rows of a table."""
    group = group_of((home / "run").resolve())
    hierarchy = cgroup.detect(Path("/proc/self/mountinfo").read_text())
    assert hierarchy is not None
    sandboxes: list[mitos.DirectSandbox] = []
    for count in counts:
        while len(sandboxes) < count:
            sandboxes.append(mitos.create("python", base_url=url, api_key=""))
            first_exec(sandboxes[-1])
        time.sleep(QUIET_S)
        before = hierarchy.cpu_seconds(group)
        time.sleep(WATCHED_S)
        percent = (hierarchy.cpu_seconds(group) - before) / WATCHED_S * 100
        yield f"| CPU of {count} idle, % of a core | {percent:.3f} |"
    pss, alone = memory(sandboxes[0], home)
    yield f"| PSS of an idle clone, MB | {pss:.1f} |"
    yield f"| of it its alone, MB | {alone:.1f} |"
    for sandbox in sandboxes:
        sandbox.terminate()


def memory(source: mitos.DirectSandbox, home: Path) -> tuple[float, float]:
    """Medians over the processes of clones, once they are idle."""
    before = set(process.find(f"--root={home / 'run' / 'runsc'}"))
    clones = source.fork(CLONES)
    for clone in clones:
        first_exec(clone)
    time.sleep(QUIET_S)
    found = set(process.find(f"--root={home / 'run' / 'runsc'}")) - before
    sums: dict[str, list[int]] = {}
    for pid in found:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = next(word for word in words if word.startswith(b"--bundle=")).decode()
        rows = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        )
        kib = {key: int(value.split()[0]) for key, value in rows.items()}
        entry = sums.setdefault(name, [0, 0, 0])
        entry[0] += kib["Pss"]
        entry[1] += kib["Private_Clean"] + kib["Private_Dirty"]
        entry[2] |= Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    running = [entry for entry in sums.values() if not entry[2]]  # the pool's own are stopped
    for clone in clones:
        clone.terminate()
    return (
        statistics.median(entry[0] for entry in running) / _KIB_PER_MB,
        statistics.median(entry[1] for entry in running) / _KIB_PER_MB,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100])
    parser.add_argument(
        "--home", type=Path, default=Path(os.environ.get("MITOS_HOME", "/var/lib/mitos"))
    )
    parser.add_argument("--record", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    python = str(options.checkout.absolute() / ".venv" / "bin" / "python")
    with tempfile.TemporaryDirectory(prefix="mitos-bench-") as folder:
        home = Path(folder)
        for name in ("bin", "rootfs"):
            (home / name).symlink_to(options.home / name)
        with own_server(home, python) as url:
            rows = list(run(url, home, options.counts))
    table = "\n".join(["| what | |", "| --- | ---: |", *rows])
    print(table)
    if options.record:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        options.record.write_text(f"# Idle\n\n`bench/idle.py`, {date}. {machine()}.\n\n{table}\n")


if __name__ == "__main__":
    main()
