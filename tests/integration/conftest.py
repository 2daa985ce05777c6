"""A real server with real sandboxes, started once for all integration tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import mitos
from tests.integration.leftovers import Leftovers
from tests.machine import borrow_cache, mitos_home, why_no_real_sandboxes

pytestmark = pytest.mark.real

START_DEADLINE_S = 900
"""The first start on a machine builds the root filesystem."""

STOP_DEADLINE_S = 60

PUBLISHED_VERSION = "0.3.1"


@dataclass(frozen=True)
class Server:
    """A running `mitos serve` and where it keeps its state."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def create(self, template: str = "python") -> mitos.DirectSandbox:
        """A new sandbox of this server."""
        return mitos.create(template, base_url=self.url, api_key="")

    def end_sandboxes(self) -> list[str]:
        """Ends every sandbox there is; their ids."""
        running = [row["id"] for row in mitos.SandboxServer(self.url).list_sandboxes()]
        for sandbox_id in running:
            httpx.delete(f"{self.url}/v1/sandboxes/{sandbox_id}").raise_for_status()
        return running


@contextlib.contextmanager
def serve(home: Path, log: Path, *options: str, **environment: str) -> Iterator[Server]:
    """Starts a server on a free port, waits until it listens, and stops it afterwards."""
    port_file = log.with_suffix(".port")
    port_file.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--addr", "127.0.0.1:0"]
    argv += ["--home", str(home), "--port-file", str(port_file), *options]
    with log.open("wb") as sink:
        process = subprocess.Popen(argv, stderr=sink, env={**os.environ, **environment})
    try:
        port = wait_for_port(process, port_file, log)
        yield Server(f"http://127.0.0.1:{port}", home, process, log)
    finally:
        stop(process)


def wait_for_port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    """The port, once the server wrote it; fails with its log when it ends first."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if port_file.exists() and (text := port_file.read_text().strip()):
            return int(text)
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)
    pytest.fail(f"the server did not listen in time:\n{log.read_text()[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server as a person would, and by force if that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)
        pytest.fail("the server did not stop when asked to")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of its own for state, with the machine's cached downloads and root filesystems."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    own = tmp_path_factory.mktemp("home")
    borrow_cache(own)
    return own


@pytest.fixture(scope="session")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shared server. When it has stopped, nothing of it may be left on the machine."""
    leftovers = Leftovers(home)
    log = tmp_path_factory.mktemp("server") / "server.log"
    with serve(home, log, "--engine", "gvisor", "--prepare", "python") as running:
        yield running
    assert leftovers.found() == []
    shutil.rmtree(home / "snapshots", ignore_errors=True)


@pytest.fixture
def sandbox(server: Server) -> Iterator[mitos.DirectSandbox]:
    """A fresh sandbox, terminated afterwards."""
    with server.create() as created:
        yield created


@pytest.fixture(autouse=True)
def every_sandbox_is_gone(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a sandbox running fails, and does not disturb the next one."""
    yield
    if "server" not in request.fixturenames:
        return
    running: Server = request.getfixturevalue("server")
    left = running.end_sandboxes()
    assert left == [], "the test left sandboxes running"


@pytest.fixture(scope="session")
def published_python() -> Path:
    """An interpreter that has the published client and nothing of ours; kept in the home."""
    place = mitos_home() / "cache" / f"mitos-run-{PUBLISHED_VERSION}"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        requirement = f"mitos-run=={PUBLISHED_VERSION}"
        subprocess.run(
            [python, "-m", "pip", "install", "-q", requirement, "websockets"], check=True
        )
        (place / "installed").touch()
    return python
