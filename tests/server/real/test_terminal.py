"""Terminals over both WebSocket routes, message by message."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest

from tests.server import calling
from tests.server.calling import envelope
from tests.server.dialing import (
    CURRENT,
    LEGACY,
    PTY,
    dial,
    legacy_rest,
    opened,
    read_until,
    refusal,
    rest,
    stdin,
    typed,
)
from tests.server.serving import Server
from tests.server.waiting import open_streams, until

MAX_STREAMS = 16


# Before the upgrade


def test_a_sandbox_without_a_free_stream_takes_no_terminal(server: Server, sandbox: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_STREAMS):
            stack.enter_context(opened(server, sandbox))
        until(lambda: open_streams(server, sandbox) == MAX_STREAMS)

        with dial(server, CURRENT, f"sandbox={sandbox}") as connection:
            _, ended, close_code = rest(connection)
        assert (1, 1008) == (ended["exitCode"], close_code)
        assert "streams" in ended["error"]
        assert refusal(server, LEGACY, f"sandbox={sandbox}") == (429, "too_many_streams")


# The current route


def test_a_shell_runs_on_a_terminal_and_its_exit_comes_last(server: Server, sandbox: str) -> None:
    with opened(server, sandbox, {"open": {"pty": {"size": {"cols": 91, "rows": 33}}}}) as shell:
        shell.send_binary(stdin(b"tty; stty size; echo $TERM; pwd; exit 7\n"))
        output, ended, close_code = rest(shell)

    for line in (b"/dev/pts/", b"33 91\r\n", b"xterm-256color\r\n", b"/workspace\r\n"):
        assert line in output
    assert (7, 1000) == (ended["exitCode"], close_code)
    assert ended["execTimeMs"] > 0


def test_text_and_torn_messages_end_the_session(server: Server, sandbox: str) -> None:
    for send in (
        lambda connection: connection.send("hello"),
        lambda connection: connection.send_binary(b"\0\0\0\0\xffabc"),
    ):
        with opened(server, sandbox) as connection:
            send(connection)
            _, ended, close_code = rest(connection)
        assert (1, 1003) == (ended["exitCode"], close_code)
    until(lambda: open_streams(server, sandbox) == 0)


def test_a_second_open_is_ignored(server: Server, sandbox: str) -> None:
    with opened(server, sandbox) as shell:
        shell.send_binary(envelope({"open": {"command": "exit 9"}}))
        shell.send_binary(stdin(b"exit 4\n"))
        assert 4 == rest(shell)[1]["exitCode"]


def test_the_end_of_input_is_ctrl_d_and_output_goes_on(server: Server, sandbox: str) -> None:
    command = "cat; echo after; exit 3"
    with opened(server, sandbox, {"open": {"command": command, "pty": {}}}) as shell:
        shell.send_binary(stdin(b"line\n"))
        read_until(shell, b"line\r\nline\r\n")
        shell.send_binary(envelope({"stdinClose": True}))
        output, ended, _ = rest(shell)

    assert output.endswith(b"after\r\n")
    assert 3 == ended["exitCode"]


def test_without_a_terminal_both_outputs_are_apart_and_input_ends(
    server: Server, sandbox: str
) -> None:
    with opened(server, sandbox, {"open": {"command": "cat; echo err >&2"}}) as command:
        command.send_binary(stdin(bytes(range(256))))
        command.send_binary(envelope({"stdinClose": True}))
        names = set()
        output = b""
        while True:
            data = command.recv()
            ((name, piece),) = json.loads(data[5:]).items()
            if name == "exit":
                break
            names.add(name)
            output += base64.b64decode(piece) if name == "stdout" else b""

    assert {"stdout", "stderr"} == names
    assert bytes(range(256)) == output


def test_a_deadline_that_is_asked_for_ends_a_terminal(server: Server, sandbox: str) -> None:
    request = {"command": "sleep 60", "timeoutSeconds": 1, "pty": {}}
    with opened(server, sandbox, {"open": request}) as session:
        assert 124 == rest(session)[1]["exitCode"]


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_a_client_that_goes_away_takes_its_processes_along(
    server: Server, sandbox: str, subprotocol: str
) -> None:
    with dial(server, subprotocol, f"sandbox={sandbox}") as connection:
        line = b"setsid sleep 700 & echo started\n"
        if subprotocol == CURRENT:
            connection.send_binary(envelope(PTY))
            connection.send_binary(stdin(line))
        else:
            connection.send(json.dumps(typed(line)))
        until(lambda: "sleep 700" in calling.run(server, sandbox, "ps axo args")[0])
        connection.sock.close()

    until(lambda: open_streams(server, sandbox) == 0)
    assert "sleep 700" not in calling.run(server, sandbox, "ps axo args")[0]


@pytest.mark.parametrize("subprotocol", [CURRENT, LEGACY])
def test_a_sandbox_that_ends_says_so_in_the_exit(
    server: Server, sandbox: str, subprotocol: str
) -> None:
    with dial(server, subprotocol, f"sandbox={sandbox}") as connection:
        if subprotocol == CURRENT:
            connection.send_binary(envelope(PTY))
        until(lambda: open_streams(server, sandbox) == 1)
        assert server.delete(f"/v1/sandboxes/{sandbox}").status_code == 200
        _, ended, close_code = (rest if subprotocol == CURRENT else legacy_rest)(connection)

    assert 1 == ended["exitCode" if subprotocol == CURRENT else "exit_code"]
    assert sandbox in ended["error"]
    assert 1011 == close_code


# The older route


def test_the_older_route_runs_a_shell_of_the_size_in_its_address(
    server: Server, sandbox: str
) -> None:
    with dial(server, LEGACY, f"sandbox={sandbox}&cols=100&rows=30") as shell:
        shell.send(json.dumps(typed(b"stty size; exit 5\n")))
        output, ended, close_code = legacy_rest(shell)

    assert b"30 100\r\n" in output
    assert ({"kind": "exit", "exit_code": 5}, 1000) == (ended, close_code)


@pytest.mark.parametrize("size", ["", "&cols=0&rows=-3", "&cols=x&rows=", f"&cols={'9' * 5000}"])
def test_a_size_that_is_none_is_80_by_24(server: Server, sandbox: str, size: str) -> None:
    with dial(server, LEGACY, f"sandbox={sandbox}{size}") as shell:
        shell.send(json.dumps(typed(b"stty size; exit\n")))
        output, ended, _ = legacy_rest(shell)

    assert b"24 80\r\n" in output
    assert {"kind": "exit"} == ended


def test_the_older_route_ignores_what_it_does_not_know(server: Server, sandbox: str) -> None:
    with dial(server, LEGACY, f"sandbox={sandbox}") as shell:
        for odd in (
            *("{", "[]", "null", "[" * 5000, '{"kind": "jump"}', '{"kind": "input"}'),
            *('{"kind": "input", "data": 5}', '{"kind": "input", "data": "a"}'),
            '{"kind": "resize", "cols": "x"}',
        ):
            shell.send(odd)
        shell.send_binary(b"\0\xff")
        shell.send(json.dumps({"kind": "resize", "cols": 70, "rows": 20}))
        shell.send(json.dumps(typed(b"stty size; exit 2\n")))
        output, ended, _ = legacy_rest(shell)

    assert b"20 70\r\n" in output
    assert 2 == ended["exit_code"]
