"""Commands in the real agent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mitos.wire.link import Control, Fields, Frame, FrameType, Operation, Status, Tag

from .client import AgentClient, exec_fields
from .conftest import Agent

ENOENT, EACCES = 2, 13
MARK = "sleep 31415"

ESCAPES = {
    "child": f"{MARK} & {MARK}",
    "new session": f"setsid {MARK} & sleep 60",
    "double fork": f"(({MARK} &) &) ; sleep 60",
    "new session, double fork, empty environment": (
        f"env -i setsid sh -c '({MARK} &) ; {MARK}' & sleep 60"
    ),
    "ignores signals": f"trap '' TERM INT HUP; {MARK} & wait; sleep 60",
    "the command ended, its child holds the pipe": f"setsid {MARK} &",
    "forks as fast as it can": f"f() {{ while :; do ({MARK} &) ; done; }}; f & f & sleep 60",
}


def survivors(client: AgentClient) -> bytes:
    listing = client.shell("ps axo args")
    assert listing.fields.get_int(Tag.EXIT_CODE) == 0, listing.stderr
    return b"".join(line for line in listing.stdout.splitlines(True) if b"sleep 31415" in line)


def test_output_and_exit_code_come_back(client: AgentClient) -> None:
    result = client.shell("echo out; echo err >&2; exit 7")

    assert result.status is Status.OK
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.fields.get_int(Tag.EXIT_CODE) == 7
    assert result.fields.get_uint(Tag.DURATION) > 0


def test_a_killed_command_reports_its_signal(client: AgentClient) -> None:
    result = client.shell("kill -9 $$")

    assert result.fields.get_uint(Tag.SIGNAL) == 9
    assert result.fields.get_raw(Tag.EXIT_CODE) is None


def test_a_command_that_is_not_there_is_an_error(client: AgentClient) -> None:
    result = client.exec("no-such-command")

    assert result.status is Status.FAILED
    assert result.fields.get_uint(Tag.ERRNO) == ENOENT
    assert "no-such-command" in result.fields.get_text(Tag.MESSAGE)


def test_a_file_that_may_not_run_is_an_error(client: AgentClient) -> None:
    client.write_file("/tmp/plain", b"echo hi\n")

    assert client.exec("/tmp/plain").fields.get_uint(Tag.ERRNO) == EACCES


def test_a_directory_that_is_not_there_is_an_error(client: AgentClient) -> None:
    result = client.shell("true", cwd="/no/such/place")

    assert result.status is Status.FAILED
    assert result.fields.get_uint(Tag.ERRNO) == ENOENT
    assert "/no/such/place" in result.fields.get_text(Tag.MESSAGE)


def test_a_script_without_an_interpreter_line_runs_in_the_shell(client: AgentClient) -> None:
    client.write_file("/tmp/script", b"echo shell $1\n", mode=0o755)

    assert client.exec("/tmp/script", "arg").stdout == b"shell arg\n"


def test_the_program_is_looked_up_in_the_new_environment(client: AgentClient) -> None:
    client.write_file("/tmp/own/tool", b"#!/bin/sh\necho mine\n", mode=0o755)

    assert client.exec("tool", env={"PATH": "/nowhere:/tmp/own"}).stdout == b"mine\n"


def test_variables_are_laid_over_the_environment(client: AgentClient) -> None:
    result = client.shell("echo $A $HOME", env={"A": "b=c d"})

    assert result.stdout == b"b=c d /root\n"


def test_it_runs_in_the_workspace_unless_told_otherwise(client: AgentClient) -> None:
    client.shell("mkdir -p below")

    assert client.shell("pwd").stdout == b"/workspace\n"
    assert client.shell("pwd", cwd="below").stdout == b"/workspace/below\n"
    assert client.shell("pwd", cwd="/tmp").stdout == b"/tmp\n"


def test_without_input_it_reads_the_null_device(client: AgentClient) -> None:
    assert client.exec("cat").stdout == b""


def test_input_arrives_and_ends(client: AgentClient) -> None:
    data = bytes(range(256)) * 4000

    assert client.exec("cat", stdin=data).stdout == data


def test_input_nobody_reads_does_not_stop_the_stream(client: AgentClient) -> None:
    stream = client.open(
        Operation.EXEC, exec_fields(["sh", "-c", "exec <&-; sleep 0.2"], stdin=True)
    )
    client.write(stream, bytes(3 << 20))

    assert client.finish(stream).fields.get_int(Tag.EXIT_CODE) == 0


def test_children_get_many_open_files_and_no_needless_rights(client: AgentClient) -> None:
    result = client.shell("grep CapBnd /proc/self/status; ulimit -n; ls /proc/self/fd")

    bounding, limit, *descriptors = result.stdout.split()[1:]
    assert int(bounding, 16) & 1 << 21 == 0, "CAP_SYS_ADMIN"
    assert int(limit) >= 1024
    assert descriptors == [b"0", b"1", b"2", b"3"], "3 is the directory that ls reads"


def test_children_start_with_default_signals(client: AgentClient) -> None:
    masks = dict(
        line.split() for line in client.shell("grep Sig /proc/self/status").stdout.splitlines()
    )

    assert int(masks[b"SigBlk:"], 16) == 0
    assert int(masks[b"SigIgn:"], 16) == 0


def test_a_command_leads_its_own_group(client: AgentClient) -> None:
    pid, group = client.exec("sh", "-c", "echo $$; ps -o pgid= -p $$").stdout.split()

    assert pid == group


# ---- ending ----


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
def test_a_timeout_kills_everything_the_command_started(client: AgentClient, script: str) -> None:
    began = time.monotonic()
    result = client.shell(f"echo begun; {script}", timeout_ms=400)

    assert result.status is Status.OK
    assert result.fields.get_uint(Tag.TIMED_OUT) == 1
    assert result.fields.get_raw(Tag.EXIT_CODE) is None
    assert result.stdout.startswith(b"begun\n")
    assert survivors(client) == b""
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
def test_a_cancel_kills_everything_the_command_started(client: AgentClient, script: str) -> None:
    stream = client.start_shell(f"echo begun; {script}")
    client.wait_until(lambda: b"begun" in stream.stdout)
    time.sleep(0.1)
    client.cancel(stream)

    assert client.finish(stream).status is Status.CANCELED
    assert survivors(client) == b""


def test_a_cancel_right_after_the_start_is_heard(client: AgentClient) -> None:
    for _ in range(20):
        stream = client.start_shell(MARK)
        client.cancel(stream)
        assert client.finish(stream).status is Status.CANCELED

    assert survivors(client) == b""


def test_a_timeout_leaves_other_commands_alone(client: AgentClient) -> None:
    other = client.start_shell("sleep 1; echo done")
    client.shell("sleep 60", timeout_ms=200)

    assert client.finish(other).stdout == b"done\n"


def test_a_command_that_ends_in_time_does_not_time_out(client: AgentClient) -> None:
    client.gives_credit = False
    stream = client.start_shell("head -c 300000 /dev/zero", timeout_ms=300)
    client.wait_until(lambda: len(stream.stdout) == 262144)
    time.sleep(0.5)
    client.give_credit(stream)

    result = client.finish(stream)
    assert len(result.stdout) == 300000
    assert result.fields.get_int(Tag.EXIT_CODE, 99) == 0


def test_background_processes_live_on(client: AgentClient) -> None:
    client.shell(f"setsid {MARK} >/dev/null 2>&1 &")

    assert survivors(client) != b""


def test_a_background_child_that_holds_the_pipe_keeps_the_command_open(client: AgentClient) -> None:
    result = client.shell("(sleep 0.4; echo late) & echo now")

    assert result.stdout == b"now\nlate\n"
    assert result.fields.get_int(Tag.EXIT_CODE) == 0


def test_zombies_are_reaped(client: AgentClient) -> None:
    client.shell("for i in 1 2 3 4 5; do (setsid true &) ; done; sleep 0.2")

    assert client.shell("ps axo stat,args | grep '^Z' | grep -v grep; true").stdout == b""


def test_nothing_is_left_of_ended_commands(agent: Agent, client: AgentClient) -> None:
    client.shell("true")
    descriptors = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    for _ in range(50):
        client.shell("echo x; exit 1")
        client.exec("no-such-command")

    assert len(list(Path(f"/proc/{agent.pid}/fd").iterdir())) == descriptors
    assert client.shell("ls /proc | grep -c '^[0-9]'").stdout.strip() in (b"3", b"4", b"5")


def test_killing_the_supervisor_does_not_lose_the_command(client: AgentClient) -> None:
    result = client.shell("kill -9 $PPID; sleep 0.2; echo still here; exit 3", timeout_ms=5000)

    assert result.stdout == b"still here\n"
    assert result.fields.get_int(Tag.EXIT_CODE) == 3


def test_a_command_whose_supervisor_was_killed_still_times_out(client: AgentClient) -> None:
    result = client.shell(f"kill -9 $PPID; {MARK}", timeout_ms=300)

    assert result.fields.get_uint(Tag.TIMED_OUT) == 1
    # All are killed; without a supervisor nobody waits until the last one has ended, too.
    deadline = time.monotonic() + 5
    while survivors(client) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert survivors(client) == b""


# ---- signals and terminals ----


def signal_command(client: AgentClient, stream_id: int, number: int) -> None:
    payload = Fields().uint(Tag.SIGNAL, number).encode()
    client.send(Frame(FrameType.CONTROL, stream_id, Control.SIGNAL, payload))


def test_a_signal_reaches_the_process_group(client: AgentClient) -> None:
    stream = client.start_shell(
        "trap 'echo got it; exit 5' TERM; sleep 60 & sleep 0.2; echo ready; wait"
    )
    client.wait_until(lambda: b"ready" in stream.stdout)
    signal_command(client, stream.id, 15)

    result = client.finish(stream)
    assert result.stdout == b"ready\ngot it\n"
    assert result.fields.get_int(Tag.EXIT_CODE) == 5


def test_a_signal_right_after_the_start_is_not_lost(client: AgentClient) -> None:
    stream = client.start_shell("sleep 60")
    signal_command(client, stream.id, 9)

    assert client.finish(stream).fields.get_uint(Tag.SIGNAL) == 9


def test_a_terminal_has_its_size_and_type(client: AgentClient) -> None:
    result = client.shell("tty; stty size; echo $TERM", term="vt100", size=(100, 30))

    assert result.stdout == b"/dev/pts/0\r\n30 100\r\nvt100\r\n"


def test_a_terminal_can_be_resized(client: AgentClient) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    stream = client.start_shell(script, term="xterm")
    client.wait_until(lambda: b"ready" in stream.stdout)
    size = Fields().uint(Tag.COLS, 132).uint(Tag.ROWS, 43).encode()
    client.send(Frame(FrameType.CONTROL, stream.id, Control.RESIZE, size))

    assert b"43 132" in client.finish(stream).stdout


def test_the_end_of_input_on_a_terminal_is_control_d(client: AgentClient) -> None:
    result = client.exec("cat", stdin=b"line\n", term="xterm")

    assert result.stdout.endswith(b"line\r\n")
    assert result.fields.get_int(Tag.EXIT_CODE) == 0


def test_control_c_on_a_terminal_interrupts(client: AgentClient) -> None:
    stream = client.start_shell("echo ready; exec cat", term="xterm")
    client.wait_until(lambda: b"ready" in stream.stdout)
    time.sleep(0.2)  # dash can lose a SIGINT while it starts a program
    client.write(stream, b"\x03")

    assert client.finish(stream).fields.get_uint(Tag.SIGNAL) == 2


@pytest.mark.parametrize(
    "fields",
    [
        Fields(),
        Fields().raw(Tag.ARG, b"a\0b"),
        Fields().text(Tag.ARG, "true").raw(Tag.ENV, b"A=\0"),
        Fields().text(Tag.ARG, "true").text(Tag.ENV, "no-equals-sign"),
        Fields().text(Tag.ARG, "true").text(Tag.ENV, "=x"),
        Fields().text(Tag.ARG, "true").raw(Tag.CWD, b"/tmp\0"),
        Fields().text(Tag.ARG, "true").raw(Tag.TIMEOUT, b"\1"),
    ],
)
def test_an_invalid_request_is_refused(client: AgentClient, fields: Fields) -> None:
    assert client.call(Operation.EXEC, fields).status is Status.INVALID


def test_an_empty_program_name_is_an_error(client: AgentClient) -> None:
    assert client.exec("").fields.get_uint(Tag.ERRNO) == ENOENT
