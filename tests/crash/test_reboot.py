"""A host that is started anew: every process is gone, the run folder is empty, the boot another."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from pathlib import Path

import pytest

import mitos
from tests.crash.census import processes
from tests.crash.conftest import make_home
from tests.crash.world import World, until
from tests.integration.leftovers import Leftovers

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

_IN_ANOTHER_BOOT = (
    "/bin/sh",
    "-c",
    'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"',
)


def test_after_a_reboot_what_slept_wakes_and_what_ran_is_told(folder: Path, tmp_path: Path) -> None:
    world = World(make_home(folder), folder)
    leftovers = Leftovers(world.home)
    world.start()
    ran, slept = (mitos.create("python", base_url=world.url, api_key="") for _ in range(2))
    kept = slept.checkpoint("kept")
    slept.exec("printf 'before the reboot' > /workspace/note")
    slept.hibernate()

    world.kill()
    for pid in processes(world.home).values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not processes(world.home), "no machine is left")
    shutil.rmtree(world.home / "run")
    boot = tmp_path / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    world.starter = ("unshare", "--mount", *_IN_ANOTHER_BOOT, str(boot))
    world.start()

    try:
        with pytest.raises(mitos.NotFoundError) as caught:
            ran.exec("true")
        assert caught.value.cause == "its host was restarted while it ran"
        assert slept.exec("cat /workspace/note").stdout == "before the reboot"
        assert [each.id for each in slept.checkpoints()] == [kept.id]
        assert mitos.create("python", base_url=world.url, api_key="").exec("echo ok").stdout
        world.end_all()
    finally:
        world.stop()
    assert leftovers.found() == []
