"""A server for one benchmark alone, and the machine it ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mitos

START_DEADLINE_S = 900


@contextlib.contextmanager
def own_server(home: Path, python: str = sys.executable) -> Iterator[str]:
    """A server for this run alone, on a free port; of the version that `python` has."""
    with tempfile.TemporaryDirectory() as work:
        port_file = Path(work, "port")
        argv = [python, "-m", "mitos.cli.main", "serve", "--addr", "127.0.0.1:0"]
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


def settle(url: str, seconds: float) -> None:
    """Lets the server refill its pool: users are not faster than it for long."""
    mitos.SandboxServer(url).health()
    time.sleep(seconds)
