"""Commands that are found again, over real connections to real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import mitos
from mitos import aio
from tests.integration.conftest import Server

pytestmark = pytest.mark.real

DEADLINE_S = 30.0
EXEC_PATH = "/sandbox.v1.Sandbox/ExecStream"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@contextlib.contextmanager
def exec_stream(
    server: Server, sandbox: str, command: str = "", **headers: str
) -> Iterator[tuple[httpx.Headers, Iterator[dict[str, Any]]]]:
    """An exec call as a plain HTTP client makes it; leaving the context breaks the connection."""
    message = json.dumps({"command": command, "timeoutSeconds": 60}).encode()
    named = {f"x-command-{name}": value for name, value in headers.items()}
    named |= {"content-type": "application/connect+json", "x-sandbox-id": sandbox}
    body = struct.pack("!BI", 0, len(message)) + message
    with (
        httpx.Client(base_url=server.url, timeout=DEADLINE_S) as client,
        client.stream("POST", EXEC_PATH, headers=named, content=body) as response,
    ):
        yield response.headers, messages(response.iter_bytes())


def messages(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 5 and len(buffer) >= 5 + int.from_bytes(buffer[1:5], "big"):
            size = 5 + int.from_bytes(buffer[1:5], "big")
            yield json.loads(buffer[5:size] or b"{}")
            buffer = buffer[size:]


def test_published_calls_get_an_id_and_are_killed_with_their_connection(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    with exec_stream(server, sandbox.id, "echo up; sleep 31415") as (headers, answers):
        assert "stdout" in next(answers)
        assert headers["x-command-id"].startswith("cmd-")

    wait_for(lambda: sandbox.commands() == [])
    assert "31415" not in sandbox.exec("ps axo args | grep -v grep").stdout


def test_a_kept_command_is_read_on_after_its_connection_broke(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    script = "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exit 5"
    with exec_stream(server, sandbox.id, script, id="job", keep="true") as (_, answers):
        assert next(answers) == {"stdout": ""}
        assert next(answers) == {"stdout": "b25lCg=="}
    sandbox.files.write("go", "")

    with exec_stream(server, sandbox.id, id="job", offset="4") as (headers, answers):
        rest = list(answers)

    assert (headers["x-command-offset"], headers["x-command-lost"]) == ("4", "0")
    assert rest[1] == {"stdout": "dHdvCg=="}
    assert rest[2]["exit"]["exitCode"] == 5


def test_a_background_command_streams_and_ends(sandbox: mitos.DirectSandbox) -> None:
    pieces: list[bytes] = []

    process = sandbox.exec_background(
        "echo out; echo err >&2; while [ ! -e go ]; do sleep 0.02; done; exit 7",
        on_stdout=pieces.append,
    )
    wait_for(lambda: pieces == [b"out\n"])
    assert process.running()
    sandbox.files.write("go", "")
    result = process.wait()

    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert not process.running()
    assert process.lost_bytes == 0


def test_another_process_finds_the_command_by_its_id(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    started = sandbox.exec_background("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two")
    other = mitos.DirectSandbox(sandbox.id, "python", "", server.url, 0.0)

    found = other.command(started.id)
    sandbox.files.write("go", "")

    assert found.wait().stdout == "one\ntwo\n"
    [listed] = [each for each in other.commands() if each.id == started.id]
    assert (listed.running, listed.exit_code, listed.output_end) == (False, 0, 8)
    with pytest.raises(mitos.AgentRunError) as missing:
        other.command("never-started")
    assert missing.value.code == "not_found"


def test_a_background_command_is_killed_with_all_it_started(sandbox: mitos.DirectSandbox) -> None:
    process = sandbox.exec_background("setsid sleep 31415 & sleep 31415")
    wait_for(lambda: "31415" in sandbox.exec("ps axo args | grep -v grep").stdout)

    process.kill()

    assert process.wait().exit_code == -1
    assert "31415" not in sandbox.exec("ps axo args | grep -v grep").stdout
    process.kill()


def test_its_deadline_ends_a_background_command(sandbox: mitos.DirectSandbox) -> None:
    assert sandbox.exec_background("sleep 60", timeout=1).wait().exit_code == 124


def test_a_forked_child_reads_the_commands_its_parent_ran(sandbox: mitos.DirectSandbox) -> None:
    process = sandbox.exec_background(
        "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; exit 4"
    )
    wait_for(lambda: any(each.output_end == 4 for each in sandbox.commands()))

    [child] = sandbox.fork(1)
    with child:
        child.files.write("go", "")
        result = child.command(process.id).wait()
        assert (result.exit_code, result.stdout) == (4, "one\ntwo\n")
        assert process.running(), "the parent's command is another one"

    process.kill()
    process.wait()


def test_output_that_went_over_the_limit_is_reported(sandbox: mitos.DirectSandbox) -> None:
    process = sandbox.exec_background("head -c 20000000 /dev/zero; echo end")
    process.wait()

    late = sandbox.command(process.id)
    result = late.wait()

    assert late.lost_bytes > 0
    assert late.lost_bytes + len(result.stdout) == 20_000_004
    assert result.stdout.endswith("end\n")


def test_two_hundred_commands_leave_nothing(sandbox: mitos.DirectSandbox) -> None:
    def measure() -> tuple[int, int]:
        status = sandbox.exec("ls /proc/1/fd | wc -l; grep VmRSS /proc/1/status").stdout.split()
        return int(status[0]), int(status[2]) << 10

    for _ in range(20):
        sandbox.exec("head -c 100000 /dev/zero")
    before = measure()
    for _ in range(200):
        sandbox.exec("head -c 100000 /dev/zero")
    after = measure()

    assert after[0] == before[0]
    assert after[1] < before[1] + (1 << 20)
    assert sandbox.commands() == []


def test_the_asynchronous_form_does_the_same(server: Server, sandbox: mitos.DirectSandbox) -> None:
    async def use() -> None:
        box = aio.AsyncDirectSandbox(sandbox.id, "python", "", server.url, 0.0)
        process = await box.exec_background("echo one; while [ ! -e go ]; do sleep 0.02; done")
        assert process.running()
        with pytest.raises(TimeoutError):
            await process.wait(0.1)
        await box.files.write("go", "")
        assert (await process.wait(DEADLINE_S)).stdout == "one\n"
        found = await box.command(process.id)
        assert (await found.wait(DEADLINE_S)).stdout == "one\n"

        endless = await box.exec_background("sleep 31415")
        await endless.kill()
        assert (await endless.wait(DEADLINE_S)).exit_code == -1
        with pytest.raises(mitos.AgentRunError):
            await box.command("never-started")
        await aio.close_http_pools()

    asyncio.run(use())
