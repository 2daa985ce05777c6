"""Five sandboxes that outlive their server, and one moment in their life."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

import mitos
from tests.crash.census import halves
from tests.crash.living import Job, Living
from tests.crash.moment import Moment
from tests.crash.operation import OPERATIONS
from tests.crash.point import IDLE, Point
from tests.crash.subject import Operation
from tests.crash.world import World, until

__all__ = ["Scene", "Trouble"]

DEADLINE_S = 50_000
QUIET_S = 0.4
ANSWER_WITHIN_S = 120.0
REACHED_WITHIN_S = 30.0
"""How long an operation may take to come to its point; a bound against hanging."""


class Trouble:
    """What is wrong with a host while a server starts: nothing, here.

    Attributes:
        allows_create: False when no sandbox can be made as long as it lasts.
        ended: the ids of those that it ends.
    """

    allows_create = True
    ended: Set[str] = frozenset()

    def begin(self, scene: Scene) -> None:
        """Called while no server is there."""

    def end(self, scene: Scene) -> None:
        """Called when it has been seen that nothing is lost."""


class Scene:
    """Five sandboxes, one of them paused at each moment, two a family with a checkpoint.

    Args:
        world: with no sandbox and no server yet.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._played = 0
        world.start(IDLE, "--prepare", "python")
        one, two, parent = (Living.create(world, name) for name in ("one", "two", "parent"))
        self._paused = Living.create(world, "paused")
        child = parent.fork("child")
        parent.sandbox.checkpoint("first")
        one.sandbox.set_timeout(DEADLINE_S)
        self._paused.sandbox.set_timeout(DEADLINE_S)
        self.residents = [one, two, parent, child, self._paused]

    def complete(self) -> None:
        """Makes anew what has ended of the five."""
        if all(each.id != "two" for each in self.residents):
            self.residents.append(Living.create(self.world, "two"))

    def play(self, moment: Moment, trouble: Trouble | None = None) -> None:
        """One moment: the server dies in it, the next one has lost nothing.

        Args:
            moment: which one.
            trouble: what is wrong with the host when the next server starts.
        """
        trouble = trouble or Trouble()
        world, point = self.world, moment.point
        if point != IDLE:
            world.kill()
            world.start(point)
        with ThreadPoolExecutor(len(self.residents)) as pool:
            self._played += 1
            label = f"m{moment.seed}-{self._played}"
            operation = OPERATIONS[point.operation](world, moment.chance, label)
            operation.prepare()
            jobs = list(pool.map(lambda each: Job(each, label), self.residents))
            readings = {each.id: each.read() for each in self.residents}
            self._paused.sandbox.pause()
            records = self._records(self.residents)
            wait_for_rest(world)

            running = self._die(operation, moment, pool)
            trouble.begin(self)
            world.start()

            if trouble.allows_create:
                check_first_create(world, f"{label}-first")
            listing = world.listing()
            assert {each.id for each in self.residents} - listing.keys() == trouble.ended
            living = [each for each in self.residents if each.id not in trouble.ended]
            assert {each.id: records[each.id] for each in living} == self._records(living)
            trouble.end(self)
            operation.answer = running.result(ANSWER_WITHIN_S)
            if operation.is_killed_again:
                world.kill()
                world.start()
            operation.check(world.listing())
            self._paused.sandbox.resume()
            list(pool.map(Living.check_goes_on, living, [readings[each.id] for each in living]))
            list(pool.map(Job.check, (job for job in jobs if job.living in living)))
            operation.finish()
        self.residents = living
        assert sorted(world.listing()) == sorted(each.id for each in living)
        until(lambda: halves(world.home) == {}, "no half machine is left")

    def close(self) -> None:
        """Ends the sandboxes and the server."""
        if self.world.is_running:
            self.world.end_all()
        self.world.stop()

    def _die(self, operation: Operation, moment: Moment, pool: ThreadPoolExecutor) -> Future[Any]:
        """Runs the operation until its server is dead; its caller may try again at the next one."""
        world = self.world
        world.arm()
        running = pool.submit(attempt, operation)
        if moment.point == IDLE:
            time.sleep(moment.chance.random())
            world.kill()
        else:
            self._wait_for_death(moment.point, running)
        return running

    def _wait_for_death(self, point: Point, running: Future[Any]) -> None:
        if not self.world.has_died(REACHED_WITHIN_S):
            answer = running.result() if running.done() else "it still runs"
            raise AssertionError(f"the point was not reached: {point.name}; {answer}")

    def _records(self, living: Sequence[Living]) -> dict[str, Any]:
        return {each.id: each.record() for each in living}


def attempt(operation: Operation) -> Any:
    """The operation's answer, or None when it was cut short."""
    with contextlib.suppress(mitos.AgentRunError, httpx.HTTPError):
        return operation.run()
    return None


def wait_for_rest(world: World) -> None:
    """Waits until the pool makes no more machines, so that the operation alone is under way."""
    seen: set[str] = set()
    since = time.monotonic()

    def is_still() -> bool:
        nonlocal seen, since
        now = world.entries("run/machines")
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > QUIET_S

    until(is_still, "the pool is full")


def check_first_create(world: World, name: str) -> None:
    """Holds if the first sandbox that is asked for comes up."""
    with world.client.fork("python", id=name) as sandbox:
        assert sandbox.exec("echo up").stdout == "up\n"
