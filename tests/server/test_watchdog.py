"""Handlers that make no progress, each named with file and line."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from mitos.server.journal import Journal
from mitos.server.watchdog import RequestWatch, watch_loop
from tests.server.asgi import ask

LOCK_KEEPER = """
import asyncio, re
from mitos.server.watchdog import watch_loop

async def main():
    with watch_loop(loop_s=0.2, lock_s=0.3):
        await asyncio.sleep(0.5)
        re.match(r"(a+)+$", "a" * 24 + "b")  # computes in C, and never lets the lock go

asyncio.run(main())
"""


async def spin() -> None:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass


async def block() -> None:
    time.sleep(1)  # noqa: ASYNC251  what the test is about


@pytest.mark.parametrize("handler", [spin, block])
async def test_a_handler_that_stops_the_loop_is_named(
    handler: Callable[[], Coroutine[Any, Any, None]], caplog: pytest.LogCaptureFixture
) -> None:
    with watch_loop(loop_s=0.2):
        await asyncio.sleep(0.3)
        await handler()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert re.search(_place(handler), record.getMessage()), record.getMessage()


async def test_a_loop_that_goes_on_is_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    with watch_loop(loop_s=1):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await asyncio.sleep(0.01)

    assert [] == caplog.records


def test_a_call_that_keeps_the_lock_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOCK_KEEPER], capture_output=True, text=True, timeout=60, check=True
    )

    line = 1 + LOCK_KEEPER.splitlines().index(
        next(each for each in LOCK_KEEPER.splitlines() if "re.match" in each)
    )
    assert re.search(rf'File "<string>", line {line} in main', ended.stderr), ended.stderr


async def test_a_request_that_waits_for_ever_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await inner()

    caplog.set_level(logging.WARNING)
    waiting = asyncio.create_task(ask(Journal(RequestWatch(app, request_s=0.1)), "GET", "/v1/slow"))
    await asyncio.sleep(0.5)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    (record,) = caplog.records
    assert "op=/v1/slow" in record.getMessage()
    assert "no progress" in record.getMessage()
    assert re.search(_place(inner), record.getMessage()), record.getMessage()


async def test_a_request_that_goes_on_is_not_talked_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await asyncio.sleep(0.02)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    caplog.set_level(logging.WARNING)
    await ask(RequestWatch(app, request_s=0.2), "GET", "/v1/slow")

    assert [] == caplog.records


def _place(function: Callable[..., Any]) -> str:
    """Matches any line of a function."""
    lines, first = inspect.getsourcelines(function)
    numbers = "|".join(str(first + offset) for offset in range(len(lines)))
    return rf"test_watchdog\.py:({numbers}) in {function.__name__}\b"
