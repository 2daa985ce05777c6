"""A call beside its caller, in a task and on a thread: the same behaviour in both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mitos._sdk._loop.worker import Worker as LoopWorker
from mitos._sdk._thread.worker import Worker as ThreadWorker
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import DEADLINE_S


class Call:
    """Something that runs until it is let go, in either form."""

    def __init__(self, *, is_async: bool, outcome: Callable[[], Any] = lambda: 7) -> None:
        self.outcome = outcome
        self.may_end = threading.Event()
        self.thread: threading.Thread | None = None
        self.worker: Any = (
            LoopWorker(self._awaited, "mitos-test")
            if is_async
            else ThreadWorker(self._run, "mitos-test")
        )

    def _run(self) -> Any:
        self.thread = threading.current_thread()
        assert self.may_end.wait(DEADLINE_S)
        return self.outcome()

    async def _awaited(self) -> Any:
        while not self.may_end.is_set():
            await asyncio.sleep(0.001)
        return self.outcome()


def start(sdk: Sdk, call: Call) -> None:
    async def started() -> None:
        call.worker.start()

    if sdk.is_async:
        sdk.run(started())
    else:
        call.worker.start()


def test_it_runs_beside_its_caller_to_its_end(sdk: Sdk) -> None:
    call = Call(is_async=sdk.is_async)
    start(sdk, call)

    assert call.worker.is_running
    assert sdk.run(call.worker.join(0.02)) is False
    assert call.worker.failure is None
    call.may_end.set()
    assert sdk.run(call.worker.join(DEADLINE_S)) is True
    assert not call.worker.is_running
    assert 7 == call.worker.result()


def test_what_it_raises_is_kept_for_whoever_asks(sdk: Sdk) -> None:
    call = Call(is_async=sdk.is_async, outcome=lambda: 1 // 0)
    start(sdk, call)
    call.may_end.set()
    sdk.run(call.worker.join(DEADLINE_S))

    assert isinstance(call.worker.failure, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        call.worker.result()


@pytest.mark.parametrize("reason", ["ready", "ended", "time"])
def test_the_starter_waits_for_its_word_its_end_or_the_time(sdk: Sdk, reason: str) -> None:
    call = Call(is_async=sdk.is_async)
    if reason == "ready":
        call.worker.note_ready()
    start(sdk, call)
    if reason == "ended":
        call.may_end.set()

    sdk.run(call.worker.wait_ready(0.02 if reason == "time" else DEADLINE_S))

    assert call.may_end.is_set() is (reason == "ended")
    call.may_end.set()
    assert sdk.run(call.worker.join(DEADLINE_S)) is True


def test_one_that_was_never_started_has_ended(sdk: Sdk) -> None:
    call = Call(is_async=sdk.is_async)

    assert sdk.run(call.worker.join()) is True
    assert not call.worker.is_running
    assert call.worker.failure is None


def test_a_canceled_starter_takes_the_call_with_it() -> None:
    async def run() -> None:
        worker = LoopWorker(asyncio.Event().wait, "mitos-test")
        worker.start()
        starter = asyncio.create_task(worker.wait_ready(DEADLINE_S))
        await asyncio.sleep(0)
        starter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starter
        assert await worker.join(DEADLINE_S)
        assert worker.failure is None

    asyncio.run(run())


def test_its_own_thread_does_not_wait_for_its_end() -> None:
    joined: list[bool] = []
    worker = ThreadWorker(lambda: joined.append(worker.join()), "mitos-test")
    worker.start()

    assert worker.join(DEADLINE_S)
    assert [False] == joined


def test_those_who_wait_for_a_stuck_thread_can_be_let_go() -> None:
    call = Call(is_async=False)
    call.worker.start()
    waiter = threading.Thread(target=call.worker.join)
    waiter.start()

    call.worker.release()
    waiter.join(DEADLINE_S)

    assert not waiter.is_alive()
    assert call.worker.is_running
    call.may_end.set()
    assert call.thread is not None
    call.thread.join(DEADLINE_S)


def test_the_thread_is_named_and_does_not_keep_the_program_alive() -> None:
    call = Call(is_async=False)
    call.worker.start()
    call.may_end.set()
    call.worker.join(DEADLINE_S)

    assert call.thread is not None
    assert ("mitos-test", True) == (call.thread.name, call.thread.daemon)
