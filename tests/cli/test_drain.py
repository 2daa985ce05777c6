"""`mitos drain` as a real process against a server of the fake engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.server.settings import ServerSettings
from tests.cli.conftest import KEY, CommandLine
from tests.server.conftest import serving_fake
from tests.server.waiting import until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    folder: Path = tmp_path_factory.mktemp("drain")
    with serving_fake(folder, settings=ServerSettings(api_key=KEY)) as running:
        yield CommandLine(running)


def test_a_server_without_open_calls_can_be_stopped_at_once(command: CommandLine) -> None:
    drained = command.run("drain")
    undone = command.run("drain", "--undo")

    assert (drained.returncode, undone.returncode) == (0, 0)
    assert drained.stdout == "nothing is left: the server can be stopped\n"
    assert undone.stdout == "the server takes new work\n"


def test_what_is_left_when_the_time_is_over_is_told(command: CommandLine) -> None:
    sandbox_id = command.server.create()
    registry = command.server.node._parts.registry
    sandbox = registry.find("local", sandbox_id)
    sandbox.open_calls += 1
    try:
        drained = command.run("drain", "--timeout", "0")
    finally:
        sandbox.open_calls -= 1
        command.run("drain", "--undo")

    assert drained.returncode == 1
    assert drained.stdout == f"sandbox {sandbox_id} has an open call\n"


def test_it_waits_and_says_for_what(command: CommandLine) -> None:
    sandbox_id = command.server.create()
    sandbox = command.server.node._parts.registry.find("local", sandbox_id)
    sandbox.open_calls += 1
    with subprocess.Popen(
        command.argv("drain"),
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
        sandbox.open_calls -= 1
        stdout, _ = waiting.communicate(timeout=60)
    command.run("drain", "--undo")

    assert line == f"waiting for 1: {sandbox_id} has an open call\n"
    assert (waiting.returncode, stdout) == (0, "nothing is left: the server can be stopped\n")


def test_a_drain_that_another_ended_fails(command: CommandLine) -> None:
    sandbox_id = command.server.create()
    sandbox = command.server.node._parts.registry.find("local", sandbox_id)
    sandbox.open_calls += 1
    with subprocess.Popen(
        command.argv("drain"), env=command.environment, stderr=subprocess.PIPE, text=True
    ) as waiting:
        until(lambda: command.server.node.drain.is_on)
        command.run("drain", "--undo")
        _, stderr = waiting.communicate(timeout=60)
    sandbox.open_calls -= 1

    assert waiting.returncode == 1
    assert "draining was ended" in stderr
