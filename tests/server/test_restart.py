"""A server that stops and leaves its sandboxes: what was open is told to come again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import websocket

from mitos._sdk import failure
from mitos._sdk.outage import is_restarting
from mitos.node.settings import OnStop
from mitos.server.http import server as http_server
from tests.server import calling
from tests.server.dialing import CURRENT, LEGACY, dial, opened
from tests.server.serving import Server, serving_fake
from tests.server.waiting import open_streams, until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that leaves its sandboxes when it stops."""
    with serving_fake(tmp_path / "own", on_stop=OnStop.LEAVE) as running:
        yield running


def stop(server: Server) -> None:
    server.stop()
    server.join()


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ExecStream", {"command": "sleep 60"}),
        ("Vitals", {"intervalSeconds": 60}),
    ],
)
def test_an_open_stream_ends_with_an_error_to_try_again(
    own: Server, method: str, request_: dict[str, Any]
) -> None:
    sandbox = own.create()
    row = own.node._parts.registry.find("local", sandbox)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(calling.stream, own, method, sandbox, request_)
        until(lambda: row.is_busy)
        stop(own)
        answer = running.result(5)

    error = failure.from_connect(calling.messages(answer.content)[1]["error"], None)
    assert is_restarting(error), error
    assert "unavailable" == calling.messages(answer.content)[1]["error"]["code"]


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_a_terminal_is_told_and_closed_as_of_a_restart(own: Server, subprotocol: str) -> None:
    sandbox = own.create()
    session = (
        opened(own, sandbox) if subprotocol == CURRENT else dial(own, LEGACY, f"sandbox={sandbox}")
    )
    with session as terminal:
        until(lambda: open_streams(own, sandbox) == 1)
        stopping = threading.Thread(target=stop, args=(own,))
        stopping.start()
        said = [terminal.recv_data_frame(control_frame=True)[1]]
        while said[-1].opcode != websocket.ABNF.OPCODE_CLOSE:
            said.append(terminal.recv_data_frame(control_frame=True)[1])
        stopping.join(15)
    close = said[-1]

    assert any(b"restarted" in frame.data for frame in said)
    assert 1012 == int.from_bytes(close.data[:2], "big")


def test_the_feed_of_events_ends_and_goes_on_with_the_next_server(own: Server) -> None:
    first: list[str] = []
    with own.client() as client, client.stream("GET", "/v1/events") as feed:
        lines = feed.iter_lines()
        first.append(next(lines))
        stopping = threading.Thread(target=stop, args=(own,))
        stopping.start()
        list(lines)
        stopping.join(15)

    assert first[0].startswith("id: ")


def test_a_request_that_is_cut_off_is_told_to_come_again(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = own.create()
    monkeypatch.setattr(http_server, "STOP_DEADLINE_S", 0.1)
    begun = threading.Event()

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(own.node._parts.creation, "fork", never)
    with ThreadPoolExecutor(1) as pool:
        path = f"/v1/sandboxes/{sandbox}/fork"
        running = pool.submit(own.post, path, json={"id": own.new_id()})
        assert begun.wait(5)
        stop(own)
        answer = running.result(5)

    assert (503, "1") == (answer.status_code, answer.headers["retry-after"])
    assert is_restarting(failure.from_runtime(503, answer.content, None))
