"""Of many tasks that have much to do, one does it in each round of the loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from mitos.host.turns import turn

TASKS = 50


async def test_a_short_task_waits_for_one_and_not_for_all() -> None:
    done = 0
    seen: list[int] = []

    async def much() -> None:
        nonlocal done
        for _ in range(3):
            await turn()
            done += 1

    async def short() -> None:
        while done < 3 * TASKS:
            seen.append(done)
            await asyncio.sleep(0)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(short())
        for _ in range(TASKS):
            group.create_task(much())

    assert max(b - a for a, b in pairwise(seen)) <= 1


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    waiting = [asyncio.create_task(turn()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()

    async with asyncio.timeout(30):
        await asyncio.gather(*waiting, return_exceptions=True)
        await turn()
