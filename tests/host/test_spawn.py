"""Programs that take long to start hold up whoever waits for them, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.host import process
from tests.host.eventually import descriptors, until

SLEEP = shutil.which("sleep") or ""


@contextlib.contextmanager
def leased(program: Path) -> Iterator[None]:
    """Nobody gets to run the file in the block: its lease is ours. They wait for us."""
    descriptor = os.open(program, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # we are told so, and ignore it
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        # Closing would not do: the process that waits for us has the descriptor as well.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(descriptor)


def waits_for(program: Path) -> bool:
    """True while a process of ours has yet to become the program."""
    locks = Path("/proc/locks").read_text().splitlines()
    inode = f":{program.stat().st_ino} "
    return any("LEASE" in line and "BREAKING" in line and inode in line for line in locks)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    copy = tmp_path / "program"
    shutil.copy(SLEEP, copy)
    return copy


async def test_the_loop_goes_on_while_a_program_has_yet_to_start(program: Path) -> None:
    with leased(program):
        starting = asyncio.create_task(process.start([program, "60"]))
        await until(lambda: waits_for(program))
        assert not starting.done()
    child = await starting

    assert child.is_running
    await child.kill()
    assert await child.wait() == -signal.SIGKILL


async def test_a_start_that_is_given_up_leaves_nothing(program: Path) -> None:
    before = descriptors()
    with leased(program):
        starting = asyncio.create_task(process.start([program, "60"]))
        await until(lambda: waits_for(program))
        starting.cancel()
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert process.find(str(program)) == []
    assert descriptors() - before == set()


async def test_a_program_gets_streams_variables_a_directory_and_a_session(tmp_path: Path) -> None:
    said = "echo $WORD; pwd; ps -o sid= -p $$; echo $$; readlink /proc/$$/fd/0"
    done = await process.run(
        ["sh", "-c", said],
        timeout_s=10,
        environment={"WORD": "one two", "PATH": os.environ["PATH"]},
        directory=tmp_path,
    )

    word, folder, session, pid, source = done.stdout.decode().splitlines()
    assert (word, folder, source) == ("one two", str(tmp_path), os.devnull)
    assert session.strip() == pid


async def test_a_program_has_the_signals_of_a_fresh_one() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN

    done = await process.run(["grep", "Sig[BI]", "/proc/self/status"], timeout_s=10)

    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.decode().splitlines())
    assert blocked == 0
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


async def test_what_cannot_be_said_to_a_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(process.CommandError, match="null byte"):
        await process.start(["true", "a\0b"])
    with pytest.raises(process.CommandError, match="No such file"):
        await process.start(["true"], directory=tmp_path / "none")
