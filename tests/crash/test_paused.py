"""A sandbox that stands still while its servers come and go, and is copied meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

import mitos
from tests.crash.conftest import make_home
from tests.crash.world import World
from tests.integration.leftovers import Leftovers

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SERVERS = 3


def test_it_is_copied_under_each_server_and_then_goes_on(folder: Path) -> None:
    world = World(make_home(folder), folder)
    leftovers = Leftovers(world.home)
    world.start()
    try:
        sandbox = mitos.create("python", base_url=world.url, api_key="")
        sandbox.exec("echo here > /tmp/note")
        count = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done"
        job = sandbox.exec_background(count)
        sandbox.pause()
        for _ in range(SERVERS):
            world.kill()
            world.start()
            (child,) = sandbox.fork(1)
            assert child.exec("cat /tmp/note").stdout == "here\n"
            kept = sandbox.checkpoint()
        sandbox.resume()

        assert job.wait(60).stdout == "".join(f"{number}\n" for number in range(300))
        sandbox.restore(kept.id)
        assert sandbox.exec("cat /tmp/note").stdout == "here\n"
        world.end_all()
    finally:
        world.stop()
    assert leftovers.found() == []
