"""The line of those who make machines."""

from __future__ import annotations

import asyncio

import pytest

from mitos.node.machine.admission import Admission
from mitos.node.machine.room import KEPT_BYTES, MACHINE_BYTES, Room
from mitos.wire.errors import ApiError


def admission(*, at_once: int = 2, max_waiting: int = 10, deadline_s: float = 30) -> Admission:
    return Admission(at_once=at_once, max_waiting=max_waiting, deadline_s=deadline_s)


async def test_so_many_are_served_at_once_and_the_others_in_their_order() -> None:
    line, served, now, most = admission(), [], 0, 0

    async def work(number: int) -> None:
        nonlocal now, most
        async with line.turn():
            now += 1
            most = max(most, now)
            served.append(number)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*map(work, range(10)))

    assert (most, served) == (2, list(range(10)))


async def test_a_full_line_refuses_at_once_and_says_when_to_come_again() -> None:
    line = admission(at_once=1, max_waiting=1)
    async with line.turn():
        waiting = asyncio.create_task(_pass(line))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await _pass(line)
    await waiting

    assert (caught.value.code, caught.value.status) == ("rate_limited", 429)
    assert int(caught.value.context["retry_after_ms"]) >= 1000


async def test_who_waits_too_long_is_told_and_leaves_the_line() -> None:
    line = admission(at_once=1, deadline_s=0.05)
    async with line.turn():
        with pytest.raises(ApiError, match="as many machines as it can"):
            await _pass(line)
    await _pass(line)


async def test_a_turn_is_never_lost_whoever_gives_up_and_when() -> None:
    line = admission(at_once=1)
    async with line.turn():
        tasks = [asyncio.create_task(_pass(line)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
    for task in tasks[1::3]:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    async with asyncio.timeout(1):
        await _pass(line)


def test_a_machine_gets_no_memory_that_is_kept() -> None:
    room = Room(available=lambda: KEPT_BYTES + 3 * (MACHINE_BYTES + 100))

    with room.taken(2, 100):
        with pytest.raises(ApiError) as caught, room.taken(2, 100):
            pass
        with room.taken(1, 100):
            pass
    with room.taken(3, 100):
        pass

    assert caught.value.code == "quota_exceeded"
    assert "memory" == caught.value.context["dimension"]


async def _pass(line: Admission) -> None:
    async with line.turn():
        pass
