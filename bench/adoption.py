"""How long a killed server's sandboxes wait for the next one.

    bench/adoption.py [--record FILE] [--rounds N] [COUNT ...]

For each count: so many sandboxes, a server that is killed, another that starts on the same home.
Three times are taken from its start: until it has adopted all (as its log says, without the start
of Python and the engine), until it answers, and until every sandbox has answered an exec. Then one
create, and its time. `nothing` is a start on the same home without sandboxes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import mitos

sys.path.insert(0, str(Path(__file__).parent))

from server import machine

_ADOPTED = re.compile(r"adopted (\d+) sandboxes in (\d+) ms")
_CALLERS = 16
DEADLINE_S = 120


@dataclass(frozen=True)
class Times:
    """Of one restart, in milliseconds."""

    adopted: float
    listening: float
    answering: float
    create: float


class Server:
    """A server on a home and a port that stay."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._home = work / "home"
        self._home.mkdir()
        for name in ("rootfs", "bin"):
            (self._home / name).symlink_to(Path("/var/lib/mitos", name))
        self._port = "0"
        self._log = work / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> float:
        """Starts it; seconds until it answered."""
        port_file = self._work / "port"
        port_file.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--home", str(self._home)]
        argv += ["--addr", f"127.0.0.1:{self._port}", "--port-file", str(port_file)]
        began = time.perf_counter()
        self._process = subprocess.Popen(argv, stderr=self._log.open("wb"))
        while not port_file.exists() or not (text := port_file.read_text().strip()):
            if self._process.poll() is not None or time.perf_counter() - began > DEADLINE_S:
                raise SystemExit(self._log.read_text())
            time.sleep(0.001)
        self._port = text
        return time.perf_counter() - began

    def adopted(self) -> tuple[int, float]:
        """How many sandboxes it has adopted, and in how many milliseconds."""
        found = _ADOPTED.search(self._log.read_text())
        return (int(found[1]), float(found[2])) if found else (0, 0.0)

    def stop(self, number: int) -> None:
        """Ends it by a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(DEADLINE_S)


def create(url: str) -> mitos.DirectSandbox:
    """A sandbox."""
    return mitos.create("python", base_url=url, api_key="")


def restart(server: Server, boxes: list[mitos.DirectSandbox]) -> Times:
    """Kills the server and starts the next one."""
    time.sleep(2)  # the pool is full again
    server.stop(signal.SIGKILL)
    began = time.perf_counter()
    listening_s = server.start()
    with ThreadPoolExecutor(_CALLERS) as callers:
        said = [result.stdout for result in callers.map(lambda box: box.exec("echo ok"), boxes)]
    answering_s = time.perf_counter() - began
    assert said == ["ok\n"] * len(boxes), said
    count, adopted_ms = server.adopted()
    assert count == len(boxes), (count, len(boxes))
    began = time.perf_counter()
    one = create(server.url)
    create_s = time.perf_counter() - began
    one.terminate()
    return Times(adopted_ms, 1000 * listening_s, 1000 * answering_s, 1000 * create_s)


def rows(server: Server, counts: list[int], rounds: int) -> Iterator[str]:
    """Of the table."""
    boxes: list[mitos.DirectSandbox] = []
    create(server.url).terminate()  # the template is there from now on
    for count in [0, *counts]:
        while len(boxes) < count:
            boxes.append(create(server.url))
        found = [restart(server, boxes) for _ in range(rounds)]
        cells = (
            f"{statistics.median(getattr(each, name) for each in found):.0f}"
            for name in ("adopted", "listening", "answering", "create")
        )
        yield f"| {count or 'nothing'} | {' | '.join(cells)} |"
    for box in boxes:
        box.terminate()


def main() -> None:
    """Measures, prints and perhaps records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", nargs="*", type=int, default=[1, 20, 100], metavar="COUNT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", type=Path, help="write the table here")
    asked = parser.parse_args()
    today = datetime.now(timezone.utc).date()
    with tempfile.TemporaryDirectory(prefix=f"adoption-{os.getpid()}-") as work:
        server = Server(Path(work))
        server.start()
        try:
            lines = [
                f"# Adoption\n\n`bench/adoption.py`, {today}. {machine()}.\n",
                f"A server is killed, and another starts on its home. Medians of {asked.rounds}.\n",
                "Milliseconds from its start; `adopted` from when it looks for its sandboxes.\n",
                "| sandboxes | adopted | listening | all have answered | first create |",
                "| ---: | ---: | ---: | ---: | ---: |",
                *rows(server, asked.counts, asked.rounds),
            ]
        finally:
            server.stop(signal.SIGTERM)
    print("\n".join(lines))
    if asked.record:
        asked.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
