from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from mitos.host import process
from mitos.host.pidfd import ProcessWatch, start_ticks
from tests.host.eventually import descriptors, until


@pytest.fixture
async def orphan() -> AsyncIterator[int]:
    """A process that is not our child, with `60.25` as a word of its command line."""
    done = await process.run(["sh", "-c", "setsid sleep 60.25 & echo $!"], timeout_s=10)
    pid = int(done.stdout)
    await until(lambda: pid in process.find("60.25"))
    yield pid
    if pid in process.find("60.25"):
        os.kill(pid, 9)


async def test_the_end_of_a_process_is_noticed(orphan: int) -> None:
    watch = ProcessWatch.open(orphan, argument="60.25", started=start_ticks(orphan))
    ends: list[int] = []
    watch.on_end(lambda: ends.append(1))
    assert not watch.ended

    watch.kill()

    async with asyncio.timeout(5):
        await watch.wait()
    assert watch.ended
    assert ends == [1]
    watch.close()
    watch.close()


async def test_a_callback_added_after_the_end_is_called(orphan: int) -> None:
    watch = ProcessWatch.open(orphan, argument="60.25", started=start_ticks(orphan))
    watch.kill()
    async with asyncio.timeout(5):
        await watch.wait()

    ends: list[int] = []
    watch.on_end(lambda: ends.append(1))

    assert ends == [1]
    watch.close()


@pytest.mark.parametrize(("argument", "later"), [("60.5", 0), ("60.25", 1)])
async def test_another_process_with_the_id_is_refused(
    orphan: int, argument: str, later: int
) -> None:
    before, started = descriptors(), start_ticks(orphan)

    with pytest.raises(ProcessLookupError, match="another one"):
        ProcessWatch.open(orphan, argument=argument, started=started + later)

    assert descriptors() - before == set()


async def test_a_process_that_is_gone_is_refused(orphan: int) -> None:
    started = start_ticks(orphan)
    os.kill(orphan, 9)
    await until(lambda: not process.find("60.25"))

    with pytest.raises(ProcessLookupError):
        ProcessWatch.open(orphan, argument="60.25", started=started)


async def test_killing_an_ended_process_does_nothing(orphan: int) -> None:
    watch = ProcessWatch.open(orphan, argument="60.25", started=start_ticks(orphan))
    watch.kill()
    async with asyncio.timeout(5):
        await watch.wait()

    watch.kill()
    watch.close()
    watch.kill()


async def test_a_process_that_is_stopped_is_seen_until_it_goes_on(orphan: int) -> None:
    watch = ProcessWatch.open(orphan, argument="60.25", started=start_ticks(orphan))
    assert not watch.is_stopped
    watch.hold()
    await until(lambda: watch.is_stopped)
    watch.go_on()
    await until(lambda: not watch.is_stopped)

    watch.hold()
    watch.kill()
    await until(lambda: watch.ended)

    assert not watch.is_stopped
    watch.close()
