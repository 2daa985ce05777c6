"""A clock that can be held, by a clock that moves when told."""

from __future__ import annotations

import asyncio
import time

import pytest

from mitos.host.stopwatch import Stopwatch


class Hands:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_counts_only_while_nobody_holds_it() -> None:
    hands = Hands()
    watch = Stopwatch(hands)
    start = watch.now()

    hands.now += 1
    with watch.held():
        hands.now += 10
        with watch.held():
            hands.now += 10
        assert watch.is_held
        assert watch.now() - start == 1
    hands.now += 2

    assert not watch.is_held
    assert watch.now() - start == 3


async def test_a_timeout_waits_for_time_that_counts() -> None:
    hands = Hands()
    watch = Stopwatch(hands)
    entered = asyncio.Event()

    async def wait() -> None:
        async with watch.timeout(0.01):
            entered.set()
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await entered.wait()
    with watch.held():
        hands.now += 60
        await asyncio.sleep(0.2)
        assert not waiting.done()
    hands.now += 0.02
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting, 5)


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    watch = Stopwatch()
    async with watch.timeout(0.01):
        pass
    async with watch.timeout(None):
        await asyncio.sleep(0.05)


async def test_a_timeout_without_holds_is_an_ordinary_one() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Stopwatch().timeout(0.05):
            await asyncio.sleep(30)
    assert 0.04 < time.monotonic() - began < 10
