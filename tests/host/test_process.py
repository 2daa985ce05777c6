from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from mitos.host import process
from mitos.host.process import CommandError, CommandTimeoutError
from tests.host.eventually import descriptors, until


async def test_output_and_exit_code_come_back() -> None:
    done = await process.run(
        ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=10, check=False
    )

    assert done.exit_code == 3
    assert done.stdout == b"out\n"
    assert done.stderr == b"err\n"


async def test_failure_raises_with_what_the_command_said() -> None:
    with pytest.raises(CommandError, match="no such thing") as caught:
        await process.run(["sh", "-c", "echo no such thing >&2; exit 4"], timeout_s=10)

    assert caught.value.exit_code == 4


async def test_missing_program_raises() -> None:
    with pytest.raises(CommandError, match="cannot start /nonexistent/program"):
        await process.run(["/nonexistent/program"], timeout_s=10)


async def test_deadline_kills_the_command_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; wait"

    started_at = time.monotonic()
    with pytest.raises(CommandTimeoutError):
        await process.run(["sh", "-c", script], timeout_s=0.5)

    assert time.monotonic() - started_at < 5
    await _gone(int(pid_file.read_text()))


async def test_cancelling_kills_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    running = asyncio.ensure_future(
        process.run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"], timeout_s=60)
    )
    await until(lambda: pid_file.exists() and pid_file.read_text() != "")

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    await _gone(int(pid_file.read_text()))


async def test_a_daemon_that_keeps_the_pipe_holds_nothing_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sleep 60 & echo $! > {pid_file}; echo done"

    started_at = time.monotonic()
    done = await process.run(["sh", "-c", script], timeout_s=30)

    assert done.stdout == b"done\n"
    assert time.monotonic() - started_at < 5
    os.kill(int(pid_file.read_text()), 9)


async def test_output_keeps_its_end_when_it_is_over_the_limit() -> None:
    done = await process.run(["sh", "-c", "seq 1 100000"], timeout_s=10, output_limit_bytes=14)

    assert done.stdout == b"\n99999\n100000\n"


async def test_output_is_reported_while_it_comes() -> None:
    pieces: list[bytes] = []

    await process.run(
        ["sh", "-c", "echo one; sleep 0.2; echo two >&2"], timeout_s=10, on_output=pieces.append
    )

    assert pieces == [b"one\n", b"two\n"]


async def test_input_is_the_null_device_unless_given() -> None:
    done = await process.run(["cat"], timeout_s=10)

    assert done.stdout == b""


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = descriptors()

    for _ in range(3):
        await process.run(["true"], timeout_s=10)
        with pytest.raises(CommandError):
            await process.run(["/nonexistent/program"], timeout_s=10)

    assert descriptors() - before == set()


async def test_a_process_is_found_by_a_whole_word_of_its_command_line(tmp_path: Path) -> None:
    word = f"--mark={tmp_path}"
    child = await process.start(["sh", "-c", "sleep 60; :", word])
    try:
        await until(lambda: child.pid in process.find(word))  # its words come a moment later
        assert process.find(word[:-1]) == []
    finally:
        await child.kill()
    assert process.find(word) == []


async def _gone(pid: int) -> None:
    await until(lambda: not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
