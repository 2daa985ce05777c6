"""The memory limit of a sandbox while the engine works, on a made-up control group."""

from __future__ import annotations

import asyncio
import errno
import threading
from dataclasses import dataclass, field

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.engine.gvisor import room
from mitos.engine.gvisor.image import Size
from mitos.engine.gvisor.room import Room
from mitos.host.cgroup import Hierarchy, Memory
from tests.host.eventually import until

MIB = 1 << 20
LIMIT = 512 * MIB
WORK = 300 * MIB


@dataclass
class Group(Hierarchy):
    """A control group that refuses a limit below what it uses, as version 1 does."""

    used: int = 100 * MIB
    limit: int = LIMIT
    limits: list[int] = field(default_factory=list)
    is_gone: bool = False

    def memory_bytes(self, group: str) -> int:
        assert group == "top/box"
        if self.is_gone:
            raise FileNotFoundError(group)
        return self.used

    def memory_limit(self, group: str) -> int:
        assert group == "top/box"
        if self.is_gone:
            raise FileNotFoundError(group)
        return self.limit

    def set_memory_limit(self, group: str, limit_bytes: int) -> None:
        assert group == "top/box"
        if limit_bytes < self.used:
            raise OSError(errno.EBUSY, "busy")
        self.limit = limit_bytes
        self.limits.append(limit_bytes)


class Clock:
    """Waits until it is told to go on."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._ticks: asyncio.Queue[None] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self._ticks.get()

    async def tick(self) -> None:
        """Ends one wait and returns in the next, or when nobody waits any more."""
        before = len(self.waits)
        self._ticks.put_nowait(None)
        async with asyncio.timeout(5):
            for _ in range(100):
                await asyncio.sleep(0.001)
                if len(self.waits) > before:
                    return


class Kernel:
    """Counts how often it was asked to give memory back."""

    def __init__(self, group: Group, *, garbage: int = 0) -> None:
        self.asked = 0
        self._group = group
        self._garbage = garbage

    async def give_back(self) -> None:
        self.asked += 1
        self._group.used -= self._garbage
        self._garbage = 0


def make(group: Group, clock: Clock, available: int = 4096 * MIB) -> Room:
    return Room(group, "top/box", LIMIT, sleep=clock.sleep, available=lambda: available)


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_knows_what_fits(group: Group, clock: Clock) -> None:
    made = make(group, clock)

    assert made.fits(LIMIT - group.used)
    assert not made.fits(LIMIT - group.used + 1)


async def test_the_limit_is_higher_for_the_time_of_the_work(group: Group, clock: Clock) -> None:
    kernel = Kernel(group)

    async with make(group, clock).raised(WORK, kernel.give_back):
        assert group.limit == LIMIT + WORK

    assert group.limit == LIMIT
    assert kernel.asked == 1


async def test_it_is_lowered_when_the_work_fails(group: Group, clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with make(group, clock).raised(WORK, Kernel(group).give_back):
            raise ZeroDivisionError

    assert group.limit == LIMIT


async def test_what_the_work_left_behind_is_given_back_first(group: Group, clock: Clock) -> None:
    group.used = 500 * MIB
    kernel = Kernel(group, garbage=200 * MIB)

    async with make(group, clock).raised(WORK, kernel.give_back):
        group.used += 200 * MIB

    assert kernel.asked == 1
    assert group.limit == LIMIT


async def test_a_kernel_that_does_not_answer_does_not_undo_the_work(
    group: Group, clock: Clock
) -> None:
    async def fail() -> None:
        raise EngineError("it hangs")

    group.used = 500 * MIB
    made = make(group, clock)
    async with made.raised(WORK, fail):
        group.used = 600 * MIB

    assert group.limit < LIMIT + WORK
    await made.close()


async def test_a_guest_that_took_more_meanwhile_does_not_keep_the_room(
    group: Group, clock: Clock
) -> None:
    """The limit follows it down and never up again, for as long as that takes."""
    group.used = 500 * MIB
    made = make(group, clock)
    async with made.raised(WORK, Kernel(group).give_back):
        group.used = 700 * MIB
    assert group.limit == 712 * MIB  # it had 12 MiB left before

    group.used = 710 * MIB
    await clock.tick()
    assert group.limit == 712 * MIB
    group.used = 600 * MIB
    await clock.tick()
    assert group.limit == 612 * MIB
    group.used = 611 * MIB
    await clock.tick()
    assert group.limit == 612 * MIB
    group.used = 490 * MIB
    await clock.tick()
    assert group.limit == LIMIT

    assert sorted(group.limits[1:], reverse=True) == group.limits[1:]
    assert clock.waits == [0.05, 0.1, 0.2, 0.4]


async def test_it_goes_on_trying_without_an_end(group: Group, clock: Clock) -> None:
    made = make(group, clock)
    async with made.raised(WORK, Kernel(group).give_back):
        group.used = 700 * MIB

    for _ in range(20):
        await clock.tick()
    group.used = 100 * MIB
    await clock.tick()

    assert max(clock.waits) == 2.0
    assert group.limit == LIMIT


async def test_work_while_the_limit_is_being_lowered_has_its_room(
    group: Group, clock: Clock
) -> None:
    made = make(group, clock)
    async with made.raised(WORK, Kernel(group).give_back):
        group.used = 600 * MIB
    left = group.limit

    async with made.raised(WORK, Kernel(group).give_back):
        assert group.limit == LIMIT + WORK
        group.used += 150 * MIB
        await clock.tick()
        assert group.limit == LIMIT + WORK
        group.used -= 150 * MIB

    assert LIMIT < group.limit <= left
    await made.close()


async def test_a_host_without_that_much_memory_refuses_before(group: Group, clock: Clock) -> None:
    made = make(group, clock, available=WORK - 1)

    with pytest.raises(EngineError, match="this machine has 299 MiB left") as caught:
        async with made.raised(WORK, Kernel(group).give_back):
            pass

    assert caught.value.fault is EngineFault.NO_SPACE
    assert caught.value.remediation
    assert group.limits == []


async def test_a_sandbox_that_ends_meanwhile_has_no_limit_any_more(
    group: Group, clock: Clock
) -> None:
    made = make(group, clock)
    async with made.raised(WORK, Kernel(group).give_back):
        group.used = 700 * MIB
    await clock.tick()
    waits = len(clock.waits)

    group.is_gone = True
    await clock.tick()

    assert len(clock.waits) == waits
    async with asyncio.timeout(5):
        await made.close()


async def test_what_an_earlier_engine_raised_is_lowered_once_its_work_is_done(
    group: Group, clock: Clock
) -> None:
    group.limit, work = LIMIT + WORK, asyncio.Event()

    async def done() -> None:
        await work.wait()

    made = make(group, clock)
    made.lower_after(done)
    await asyncio.sleep(0.01)
    assert group.limit == LIMIT + WORK
    work.set()

    await until(lambda: group.limit == LIMIT)
    await made.close()


async def test_what_an_earlier_engine_raised_is_lowered_when_nobody_says_that_it_is_done(
    group: Group, clock: Clock
) -> None:
    group.limit = LIMIT + WORK

    async def silent() -> None:
        raise EngineError("no answer")

    made = make(group, clock)
    made.lower_after(silent)

    await until(lambda: group.limit == LIMIT)
    await made.close()


async def test_a_limit_that_nobody_raised_is_left_alone(group: Group, clock: Clock) -> None:
    async def never() -> None:
        raise AssertionError

    for limit in (LIMIT, LIMIT - MIB):
        group.limit = limit
        make(group, clock).lower_after(never)
    group.is_gone = True
    make(group, clock).lower_after(never)
    await asyncio.sleep(0.01)

    assert group.limits == []


async def test_work_of_our_own_may_begin_while_an_earlier_engines_goes_on(
    group: Group, clock: Clock
) -> None:
    group.limit = LIMIT + WORK

    async def long() -> None:
        await asyncio.Event().wait()

    made = make(group, clock)
    made.lower_after(long)
    await asyncio.sleep(0.01)
    async with made.raised(MIB, Kernel(group).give_back):
        assert group.limit == LIMIT + WORK  # never less than what was given

    assert group.limit == LIMIT


async def test_close_stops_it(group: Group, clock: Clock) -> None:
    made = make(group, clock)
    async with made.raised(WORK, Kernel(group).give_back):
        group.used = 700 * MIB
    await clock.tick()

    await made.close()
    group.used = 0
    await clock.tick()

    assert group.limit > LIMIT


def test_more_objects_need_more_room() -> None:
    idle = room.to_checkpoint(Memory(shared_bytes=400 * MIB, private_bytes=20 * MIB))
    full = room.to_checkpoint(Memory(shared_bytes=0, private_bytes=300 * MIB))

    assert idle < 160 * MIB
    assert full > 900 * MIB
    assert room.to_restore(Size(objects_bytes=0, pages_bytes=400 * MIB)) < 128 * MIB


async def test_who_is_cancelled_while_the_limit_is_raised_leaves_it_as_it_was(
    group: Group, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing, may_write = threading.Event(), threading.Event()
    write = group.set_memory_limit

    def set_slowly(name: str, limit_bytes: int) -> None:
        is_writing.set()
        may_write.wait(10)
        write(name, limit_bytes)

    monkeypatch.setattr(group, "set_memory_limit", set_slowly)

    async def work() -> None:
        async with make(group, clock).raised(WORK, Kernel(group).give_back):
            pytest.fail("it was cancelled before")

    working = asyncio.create_task(work())
    await until(is_writing.is_set)
    working.cancel()
    await asyncio.sleep(0.01)
    may_write.set()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert [LIMIT + WORK, LIMIT] == group.limits
