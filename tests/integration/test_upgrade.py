"""A server that is restarted on the same home and port while clients work."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mitos
from tests.integration.leftovers import Leftovers
from tests.integration.upgrade import Restarted, Tally, clients_at_work
from tests.machine import borrow_cache, why_no_real_sandboxes

pytestmark = pytest.mark.real

WAYS = (signal.SIGTERM, signal.SIGKILL)


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Restarted]:
    """The server; when all is over, nothing of it may be left on the machine."""
    if reason := why_no_real_sandboxes():
        pytest.skip(reason)
    home = tmp_path / "home"
    home.mkdir()
    borrow_cache(home)
    leftovers = Leftovers(home)
    server = Restarted(home, tmp_path / "server")
    server.start()
    try:
        yield server
        for sandbox in mitos.SandboxServer(server.url).sandboxes():
            sandbox.terminate()
        server.stop(signal.SIGTERM)
    finally:
        server.close()
    assert leftovers.found() == []


def work_through(server: Restarted, clients: int, restarts: int) -> None:
    """Restarts the server so often while so many clients work, and looks at what they met."""
    tally = Tally()
    moments = random.Random(restarts)
    with clients_at_work(server.url, clients, tally) as wait_for_round:
        for number in range(restarts):
            wait_for_round()
            time.sleep(moments.random())
            server.stop(WAYS[number % len(WAYS)])
            server.start()
        wait_for_round()

    print(f"done: {dict(tally.done)}\nerrors: {dict(tally.errors)}")
    assert tally.findings == [], "\n".join(tally.findings)
    listed = {row["id"] for row in mitos.SandboxServer(server.url).list_sandboxes()}
    assert listed == {f"client-{number}" for number in range(clients)}


def test_clients_work_through_two_restarts(restarted: Restarted) -> None:
    work_through(restarted, clients=3, restarts=2)


@pytest.mark.crash
@pytest.mark.timeout(1800)
def test_an_upgrade_under_load(restarted: Restarted) -> None:
    """Twenty clients, ten restarts: nothing fails that may be sent again, no output is wrong."""
    work_through(restarted, clients=20, restarts=10)
