"""Pausing, hibernating and waking real sandboxes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import mitos
from tests.integration.conftest import Server, serve
from tests.machine import borrow_cache

pytestmark = pytest.mark.real

COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"
MOVING = """
until a=$(cat /tmp/count) && [ -n "$a" ]; do sleep .05; done
until [ "$(cat /tmp/count)" -gt "$a" ]; do sleep .05; done
"""
"""Waits for two counts; the file is empty for a moment before each."""


def hibernate(server: Server, sandbox: mitos.DirectSandbox) -> None:
    httpx.post(f"{server.url}/v1/sandboxes/{sandbox.id}/hibernate").raise_for_status()


def handle(server: Server, sandbox_id: str) -> mitos.DirectSandbox:
    return mitos.DirectSandbox(sandbox_id, "base", server.url, server.url, 0.0, "")


def phase(server: Server, sandbox: mitos.DirectSandbox) -> str:
    reply = httpx.get(f"{server.url}/v1/sandboxes/{sandbox.id}").raise_for_status()
    return str(reply.json()["phase"])


def test_children_of_a_paused_sandbox_run_and_it_stays_paused(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    sandbox.run_code("x = 41")
    sandbox.pause()

    with sandbox.fork(1)[0] as child:
        assert "42" == child.run_code("x + 1").text
    assert "Paused" == phase(server, sandbox)
    with pytest.raises(mitos.AgentRunError, match="paused"):
        sandbox.exec("true")
    sandbox.resume()
    assert "42" == sandbox.run_code("x + 1").text


def test_processes_and_files_outlive_ten_pauses(sandbox: mitos.DirectSandbox) -> None:
    sandbox.exec(f"setsid sh -c '{COUNTER}' > /dev/null 2>&1 &")
    sandbox.files.write("/workspace/f", "kept")
    for _ in range(10):
        sandbox.pause()
        sandbox.resume()

    assert "kept" == sandbox.files.read("/workspace/f")
    assert 0 == sandbox.exec(MOVING, timeout=30).exit_code


def test_a_hibernated_sandbox_wakes_with_memory_processes_and_files(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    sandbox.run_code("x = 41")
    sandbox.exec(f"setsid sh -c '{COUNTER}' > /dev/null 2>&1 &")
    sandbox.files.write("/workspace/f", "kept")

    hibernate(server, sandbox)

    assert "Hibernated" == phase(server, sandbox)
    assert [] != list((server.home / "hibernated").iterdir())
    assert "42" == sandbox.run_code("x + 1").text
    assert "Ready" == phase(server, sandbox)
    assert "kept" == sandbox.files.read("/workspace/f")
    assert 0 == sandbox.exec(MOVING, timeout=30).exit_code
    assert [] == list((server.home / "hibernated").iterdir())


def test_a_hibernated_sandbox_is_woken_once_by_many_calls(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    hibernate(server, sandbox)

    with ThreadPoolExecutor(6) as threads:
        printed = list(threads.map(lambda n: sandbox.exec(f"echo {n}").stdout, range(6)))

    assert [f"{n}\n" for n in range(6)] == printed
    assert sandbox.exec("hostname").stdout.strip() == sandbox.id


def test_a_hibernated_sandbox_outlives_its_server(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "home"
    own.mkdir()
    borrow_cache(own)
    with serve(own, tmp_path / "first.log", "--engine", "gvisor", "--prepare", "base") as first:
        kept, lost = first.create("base"), first.create("base")
        kept.exec("echo kept > /dev/shm/f")
        hibernate(first, kept)

    with serve(own, tmp_path / "second.log", "--engine", "gvisor") as second:
        listed = httpx.get(f"{second.url}/v1/sandboxes").json()
        assert [kept.id] == [row["id"] for row in listed]
        found = handle(second, kept.id)
        assert "kept\n" == found.exec("cat /dev/shm/f").stdout
        with pytest.raises(mitos.NotFoundError, match="has ended"):
            handle(second, lost.id).exec("true")
        found.terminate()


def test_a_sandbox_that_nobody_uses_is_ended(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "home"
    own.mkdir()
    borrow_cache(own)
    options = ("--engine", "gvisor", "--prepare", "base", "--idle-timeout", "2")
    with serve(own, tmp_path / "log", *options) as server:
        idle = server.create("base")
        assert 0 == idle.exec("sleep 3").exit_code
        deadline = time.monotonic() + 30
        while httpx.get(f"{server.url}/v1/sandboxes").json():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(mitos.IdleTimeoutError):
            idle.exec("true")
