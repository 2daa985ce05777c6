"""Connections: shared by handles, kept between calls, apart between processes and loops."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import Any

import pytest

import mitos
import mitos.aio
from mitos._sdk import pool
from mitos._sdk.framing import END_STREAM, encode_frame
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import Answer, ScriptedServer, frame_chunks, reply, stream

DONE = {"exit": {}}


def connections(server: ScriptedServer) -> int:
    """How many connections the recorded requests came by."""
    return len({request.peer for request in server.requests})


def test_calls_of_all_handles_share_a_connection(sdk: Sdk, server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream(DONE))
    server.on_call("List", reply({}))
    server.on("DELETE", "/v1/sandboxes/sb-1", reply({}))

    for _ in range(3):
        sandbox = sdk.handle(server.url)
        sdk.run(sandbox.exec("x"))
        sdk.run(sandbox.files.list())
        sdk.run(sandbox.terminate())

    assert 9 == len(server.requests)
    assert 1 == connections(server)


def test_a_stream_s_connection_is_used_again_when_its_end_comes_late(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    end = encode_frame(DONE) + encode_frame({}, END_STREAM)
    server.on_call("ExecStream", frame_chunks(end))

    for _ in range(3):
        sdk.run(sandbox.exec("x"))

    assert 1 == connections(server)


def test_a_stream_that_is_left_closes_its_connection(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ExecStream", stream({"stdout": "YQ=="}, DONE))

    def fail(_: bytes) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        sdk.run(sandbox.exec("x", on_stdout=fail))
    sdk.run(sandbox.exec("x"))

    assert 2 == connections(server)


def test_cookies_are_not_kept(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    answer = Answer(200, b"{}", {"Set-Cookie": "session=of-another-key; Path=/"})
    server.on("POST", "/v1/pause", answer)

    sdk.run(sandbox.pause())
    sdk.run(sandbox.pause())

    assert "cookie" not in server.requests[1].headers


def test_connections_are_bounded_and_kept_for_a_minute() -> None:
    assert pool.LIMITS.keepalive_expiry is not None
    assert pool.LIMITS.keepalive_expiry >= 60
    assert pool.LIMITS.max_connections is not None
    assert pool.LIMITS.max_keepalive_connections is not None


def test_closed_pools_open_again(server: ScriptedServer) -> None:
    server.on("GET", "/v1/health", reply({}))
    at_server = mitos.SandboxServer(server.url)

    for _ in range(2):
        at_server.health()
        mitos.close_http_pools()
        mitos.close_http_pools()

    assert 2 == connections(server)


def test_many_threads_share_one_handle(server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream({"stdout": "YQ=="}, DONE))
    sandbox = mitos.DirectSandbox("sb-1", "python", "", server.url, 1.0)
    results: list[str] = []

    def work() -> None:
        results.extend(sandbox.exec("x").stdout for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert ["a"] * 80 == results
    assert connections(server) <= 8
    mitos.close_http_pools()


def test_loops_of_several_threads_have_connections_of_their_own(server: ScriptedServer) -> None:
    server.on("GET", "/v1/health", reply({}))
    at_server = mitos.aio.AsyncSandboxServer(server.url)

    async def ask() -> None:
        await at_server.health()
        await at_server.health()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert (6, 3) == (len(server.requests), connections(server))


def test_a_handle_may_go_from_one_loop_to_the_next(server: ScriptedServer) -> None:
    server.on("GET", "/v1/health", reply({"status": "ok"}))
    at_server = mitos.aio.AsyncSandboxServer(server.url)

    assert [{"status": "ok"}] * 2 == [asyncio.run(at_server.health()) for _ in range(2)]


def test_a_loop_s_end_closes_its_connections(server: ScriptedServer) -> None:
    server.on("GET", "/v1/health", reply({}))
    clients: list[Any] = []
    before = set(pool._pools.loops)

    async def ask() -> None:
        await mitos.aio.AsyncSandboxServer(server.url).health()
        clients.append(pool.async_client())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(ask())
        gc.collect()

    assert clients[0].is_closed
    assert set() == set(pool._pools.loops) - before


def test_a_loop_s_connections_can_be_closed_early(server: ScriptedServer) -> None:
    server.on("GET", "/v1/health", reply({}))

    async def ask() -> None:
        at_server = mitos.aio.AsyncSandboxServer(server.url)
        await at_server.health()
        await mitos.aio.close_http_pools()
        await mitos.aio.close_http_pools()
        await at_server.health()

    asyncio.run(ask())

    assert 2 == connections(server)


def test_a_loop_that_was_never_shut_down_is_forgotten(server: ScriptedServer) -> None:
    async def make() -> None:
        pool.async_client()

    abandoned = asyncio.new_event_loop()
    abandoned.run_until_complete(make())
    abandoned.close()

    asyncio.run(make())

    assert abandoned not in pool._pools.loops


def test_a_canceled_call_leaves_the_pool_usable(server: ScriptedServer) -> None:
    server.on_call("ExecStream", server.hang, stream(DONE))

    async def use() -> int:
        sandbox = mitos.aio.AsyncDirectSandbox("sb-1", "python", "", server.url, 1.0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sandbox.exec("x"), 0.1)
        result = await sandbox.exec("x")
        return int(result.exit_code)

    assert 0 == asyncio.run(use())


def test_many_calls_at_once_in_one_loop(server: ScriptedServer) -> None:
    server.on_call("ExecStream", stream({"stdout": "YQ=="}, DONE))

    async def use() -> list[str]:
        sandbox = mitos.aio.AsyncDirectSandbox("sb-1", "python", "", server.url, 1.0)
        results = await asyncio.gather(*(sandbox.exec("x") for _ in range(100)))
        return [result.stdout for result in results]

    assert ["a"] * 100 == asyncio.run(use())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_a_forked_process_has_connections_of_its_own(server: ScriptedServer) -> None:
    """Also when another thread holds the pool's lock at the fork."""
    server.on("GET", "/v1/health", reply({}))
    program = f"""
        import os, threading
        import mitos
        from mitos._sdk import pool
        server = mitos.SandboxServer({server.url!r})
        server.health()
        held, done = threading.Event(), threading.Event()

        def hold():
            with pool._pools.lock:
                held.set()
                done.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        child = os.fork()
        if child == 0:
            server.health()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        done.set()
        thread.join()
        server.health()
        mitos.close_http_pools()
    """
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run(argv, check=True, timeout=15, env=environment)

    parent, child, again = (request.peer for request in server.requests)
    assert parent == again
    assert parent != child
