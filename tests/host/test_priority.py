"""The loop's thread is before others; what it starts is not."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mitos.host import priority, process


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be before others")
async def test_a_thread_is_first_and_its_commands_and_workers_are_not() -> None:
    session = Path("/proc/self/autogroup")
    usual, grouped = nice(), session.exists() and session.read_text()

    with priority.first():
        before = nice()
        done = await process.run(["nice"], timeout_s=10)
        with ThreadPoolExecutor(1, initializer=priority.as_usual) as pool:
            worker = await asyncio.get_running_loop().run_in_executor(pool, nice)

    assert before < usual
    assert (int(done.stdout), worker, nice()) == (usual, usual, usual)
    assert grouped == (session.exists() and session.read_text())


def test_a_host_that_does_not_allow_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, who: int, value: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    usual = nice()

    with priority.first():
        assert nice() == usual
