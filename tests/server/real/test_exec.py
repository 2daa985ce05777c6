"""Commands: ExecStream, and Exec with input, half duplex and full duplex."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server import calling
from tests.server.calling import JSON_STREAM, SERVICE, envelope, raw_exec
from tests.server.serving import Server, raw
from tests.server.stream_h2 import Http2Call
from tests.server.waiting import open_streams, until

KILL_DEADLINE_S = 2.0
MAX_STREAMS = 16


def test_output_and_exit_are_told_apart(server: Server, sandbox: str) -> None:
    assert ("out\n", "", 0) == calling.run(server, sandbox, "echo out")
    assert ("", "err\n", 7) == calling.run(server, sandbox, "echo err >&2; exit 7")


def test_a_killed_command_exits_with_minus_one(server: Server, sandbox: str) -> None:
    assert -1 == calling.run(server, sandbox, "kill -9 $$")[2]


def test_a_command_at_its_deadline_exits_with_124(server: Server, sandbox: str) -> None:
    answer = calling.stream(
        server, "ExecStream", sandbox, {"command": "sleep 10", "timeoutSeconds": 1}
    )

    found, end = calling.messages(answer.content)
    assert (124, {}) == (found[-1]["exit"]["exitCode"], end)
    assert 900 < found[-1]["exit"]["execTimeMs"] < 5000


def test_the_exit_has_a_time_and_no_zero_code(server: Server, sandbox: str) -> None:
    answer = calling.stream(server, "ExecStream", sandbox, {"command": "true"})

    (message,), _ = calling.messages(answer.content)
    assert ["execTimeMs"] == list(message["exit"])
    assert message["exit"]["execTimeMs"] > 0


def test_arguments_run_without_a_shell(server: Server, sandbox: str) -> None:
    assert "$HOME *\n" == calling.run(server, sandbox, "echo", args=["$HOME", "*"])[0]


def test_a_program_that_is_not_there_is_an_exit_with_a_reason(server: Server, sandbox: str) -> None:
    request = {"command": "no-such-program", "args": ["x"]}

    found, end = calling.messages(calling.stream(server, "ExecStream", sandbox, request).content)

    assert ([1], {}) == ([message["exit"]["exitCode"] for message in found], end)
    assert found[0]["exit"]["error"]


def test_a_directory_that_is_not_there_is_an_exit_with_a_reason(
    server: Server, sandbox: str
) -> None:
    request = {"command": "pwd", "cwd": "/no/such/place"}

    found, end = calling.messages(calling.stream(server, "ExecStream", sandbox, request).content)

    assert ([1], {}) == ([message["exit"]["exitCode"] for message in found], end)
    assert found[0]["exit"]["error"]


def test_output_comes_in_pieces_of_at_most_32_kib(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/big", b"x" * 100_000)

    answer = calling.stream(server, "ExecStream", sandbox, {"command": "cat /workspace/big"})

    found, _ = calling.messages(answer.content)
    sizes = [len(base64.b64decode(message["stdout"])) for message in found[:-1]]
    assert 100_000 == sum(sizes)
    assert max(sizes) <= 32 * 1024


# Input


def test_half_duplex_input_is_read_to_the_end_of_the_request(server: Server, sandbox: str) -> None:
    requests = [
        {"open": {"command": "cat"}},
        {"stdin": base64.b64encode(b"first ").decode()},
        {"stdin": base64.b64encode(b"second").decode()},
    ]

    found, end = calling.messages(calling.stream(server, "Exec", sandbox, *requests).content)

    output = b"".join(base64.b64decode(message["stdout"]) for message in found[:-1])
    assert (b"first second", {}) == (output, end)
    assert 0 == found[-1]["exit"].get("exitCode", 0)


def test_input_closed_twice_is_closed_once(server: Server, sandbox: str) -> None:
    requests = [{"open": {"command": "cat; sleep 0.3; echo on"}}, {"stdinClose": True}]
    requests.append({"stdinClose": True})

    found, end = calling.messages(calling.stream(server, "Exec", sandbox, *requests).content)

    assert {} == end
    assert b"on\n" == b"".join(base64.b64decode(message["stdout"]) for message in found[:-1])


def test_input_may_be_closed_before_the_request_ends(server: Server, sandbox: str) -> None:
    requests = [
        {"open": {"command": "cat"}},
        {"stdin": base64.b64encode(b"all").decode()},
        {"stdinClose": True},
        {"stdin": base64.b64encode(b"too late").decode()},
    ]

    found, end = calling.messages(calling.stream(server, "Exec", sandbox, *requests).content)

    assert {} == end
    assert b"all" == b"".join(base64.b64decode(message["stdout"]) for message in found[:-1])


def test_input_that_nobody_reads_does_not_hold_the_command(server: Server, sandbox: str) -> None:
    big = base64.b64encode(b"x" * 1_000_000).decode()

    answer = calling.stream(server, "Exec", sandbox, {"open": {"command": "true"}}, {"stdin": big})

    found, end = calling.messages(answer.content)
    assert ({}, 0) == (end, found[-1]["exit"].get("exitCode", 0))


# Cleartext HTTP/2


def test_cleartext_http2_serves_the_same_port(server: Server, sandbox: str) -> None:
    with Http2Call(server, f"{SERVICE}/ExecStream", sandbox) as call:
        call.send(envelope({"command": "echo hi"}), ends=True)
        body = call.rest()

    assert ("200", JSON_STREAM) == (call.headers[":status"], call.headers["content-type"])
    found, end = calling.messages(body)
    assert {} == end
    assert b"hi\n" == base64.b64decode(found[0]["stdout"])


def test_input_of_a_full_duplex_call_comes_while_it_runs(server: Server, sandbox: str) -> None:
    with Http2Call(server, f"{SERVICE}/Exec", sandbox) as call:
        call.send(envelope({"open": {"command": "cat"}}))
        until(lambda: open_streams(server, sandbox) == 1)
        call.send(envelope({"stdin": base64.b64encode(b"ping").decode()}))
        call.send(envelope({"stdinClose": True}))
        first = call.envelope()
        last = call.envelope()
        call.send(b"", ends=True)

    assert b"ping" == base64.b64decode(json.loads(first[1])["stdout"])
    assert "exit" in json.loads(last[1])


def test_a_full_duplex_call_ends_with_its_client(server: Server, sandbox: str) -> None:
    """The request is still open, so only its reader can notice."""
    with Http2Call(server, f"{SERVICE}/Exec", sandbox) as call:
        call.send(envelope({"open": {"command": "sleep 60"}}))
        until(lambda: open_streams(server, sandbox) == 1)

    assert until(lambda: open_streams(server, sandbox) == 0) < KILL_DEADLINE_S


def test_a_reset_stream_ends_its_call_and_no_other(server: Server, sandbox: str) -> None:
    with Http2Call(server, f"{SERVICE}/Exec", sandbox) as call:
        call.send(envelope({"open": {"command": "sleep 60"}}))
        until(lambda: open_streams(server, sandbox) == 1)
        call.reset()
        assert until(lambda: open_streams(server, sandbox) == 0) < KILL_DEADLINE_S
        call.open(f"{SERVICE}/ExecStream", sandbox)
        call.send(envelope({"command": "echo on"}), ends=True)
        assert {} == calling.messages(call.rest())[1]


# Disconnects and the limit of streams


@pytest.mark.parametrize("method", ["ExecStream", "Exec"])
def test_a_command_ends_with_its_client(server: Server, sandbox: str, method: str) -> None:
    with raw(server, raw_exec(sandbox, "sleep 60", method)):
        until(lambda: open_streams(server, sandbox) == 1)

    assert until(lambda: open_streams(server, sandbox) == 0) < KILL_DEADLINE_S
    assert ("on\n", "", 0) == calling.run(server, sandbox, "echo on")


def test_a_cell_ends_with_its_client(server: Server, sandbox: str) -> None:
    body = envelope({"code": "import time; time.sleep(3)"})
    head = (
        f"POST {SERVICE}/RunCodeStream HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {JSON_STREAM}\r\n"
        f"X-Sandbox-Id: {sandbox}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with raw(server, head + body):
        until(lambda: open_streams(server, sandbox) == 1)

    assert until(lambda: open_streams(server, sandbox) == 0) < KILL_DEADLINE_S


def test_only_the_stream_over_the_limit_is_refused(server: Server, sandbox: str) -> None:
    release = threading.Event()

    def hold() -> int:
        try:
            return calling.run(server, sandbox, "sleep 1")[2]
        finally:
            release.set()

    with ThreadPoolExecutor(MAX_STREAMS) as pool:
        held = [pool.submit(hold) for _ in range(MAX_STREAMS)]
        until(lambda: open_streams(server, sandbox) == MAX_STREAMS)
        for method, request in (
            ("ExecStream", {"command": "true"}),
            ("Exec", {"open": {"command": "true"}}),
            ("RunCodeStream", {"code": "1"}),
        ):
            answer = calling.stream(server, method, sandbox, request)
            error = calling.messages(answer.content)[1]["error"]
            assert "resource_exhausted" == error["code"]
            assert "too_many_streams" == calling.detail(error)["reason"]
        assert calling.unary(server, "List", sandbox, {"parent": "/"}).status_code == 200

    assert [0] * MAX_STREAMS == [future.result() for future in held]
    assert 0 == calling.run(server, sandbox, "true")[2]


def test_terminating_a_sandbox_ends_its_streams_with_an_error(server: Server, sandbox: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            calling.stream, server, "ExecStream", sandbox, {"command": "sleep 60"}
        )
        until(lambda: open_streams(server, sandbox) == 1)
        server.delete(f"/v1/sandboxes/{sandbox}")
        answer = running.result(5)

    assert "not_found" == calling.messages(answer.content)[1]["error"]["code"]
