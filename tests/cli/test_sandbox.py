"""Commands about sandboxes, as real processes against a real server."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from tests.cli.conftest import DEADLINE_S, KEY, CommandLine
from tests.server.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


def test_a_sandbox_is_created_used_forked_and_ended(mitos: CommandLine) -> None:
    sandbox_id = mitos.create()
    assert re.fullmatch("sandbox-[0-9a-f]{8}", sandbox_id)

    wrote = mitos.run("sandbox", "exec", sandbox_id, "echo", "kept", ">note;", "cat", "note")
    children = mitos.run("fork", sandbox_id, "--count", "2").stdout.split()
    one_more = mitos.run("sandbox", "fork", "--replicas", "1", children[0]).stdout.split()
    read = mitos.run("sandbox", "exec", one_more[0], "cat note")
    tree = mitos.run("sandbox", "tree", sandbox_id).stdout
    ended = mitos.run("sandbox", "terminate", "--subtree", sandbox_id)

    assert (wrote.stdout, wrote.returncode) == ("kept\n", 0)
    assert (len(children), read.stdout) == (2, "kept\n")
    assert [name in tree for name in [sandbox_id, *children, *one_more]] == [True] * 4
    assert f"└── {one_more[0]}" in tree
    assert ended.stdout == f"terminated {sandbox_id}\n"
    assert mitos.sandboxes() == []


def test_ls_shows_what_runs(mitos: CommandLine) -> None:
    assert "no sandboxes" in mitos.run("sandbox", "ls").stdout
    made = mitos.run("sandbox", "create", "--id", "mine", "--pool", "python")
    assert made.stdout == "mine\n"

    (row,) = mitos.sandboxes()
    table = mitos.run("sandbox", "ls").stdout.splitlines()
    mitos.run("sandbox", "terminate", "mine")

    assert row.keys() == {"name", "pool", "phase", "node", "endpoint", "ageSeconds"}
    assert (row["name"], row["pool"], row["phase"]) == ("mine", "python", "Ready")
    assert table[0].split() == ["NAME", "POOL", "PHASE", "NODE", "ENDPOINT", "AGE"]
    assert table[1].split()[:3] == ["mine", "python", "Ready"]


def test_run_gives_the_commands_output_and_exit_code(mitos: CommandLine) -> None:
    result = mitos.run("run", "echo out; echo err >&2; exit 7")

    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)


def test_run_says_that_the_time_is_over(mitos: CommandLine) -> None:
    result = mitos.run("run", "--timeout", "1", "sleep 60")

    assert result.returncode == 124
    assert "did not end within 1 s" in result.stderr


def test_output_comes_while_the_command_runs(mitos: CommandLine) -> None:
    with subprocess.Popen(
        mitos.argv("run", "echo first; sleep 600"), env=mitos.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_sandbox_too(mitos: CommandLine, number: signal.Signals) -> None:
    with subprocess.Popen(
        mitos.argv("run", "echo up; sleep 600"), env=mitos.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 128 + number

    until(lambda: mitos.sandboxes() == [])


def test_a_reader_that_goes_away_is_no_crash(mitos: CommandLine) -> None:
    with subprocess.Popen(
        mitos.argv("run", "yes"),
        env=mitos.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("sandbox", "exec", "nobody", "true"), 3, "no sandbox 'nobody' runs"),
        (("sandbox", "terminate", "nobody"), 3, "nobody"),
        (("sandbox", "create", "--pool", "nothing"), 3, "no image named 'nothing'"),
        (("sandbox", "create", "--id", "bad id"), 1, "invalid_sandbox_id"),
        (("fork",), 2, "Missing argument 'ID'"),
        (("sandbox", "nothing"), 2, "No such command"),
        (("--api-key", "wrong", "sandbox", "ls"), 1, "unauthorized"),
        (("--server", "http://127.0.0.1:9", "run", "true"), 1, "mitos serve"),
        (("--server", "nonsense", "run", "true"), 1, "invalid_base_url"),
    ],
)
def test_a_failure_says_what_to_do(
    mitos: CommandLine, arguments: tuple[str, ...], exit_code: int, says: str
) -> None:
    result = mitos.run(*arguments)

    assert (result.returncode, result.stdout) == (exit_code, "")
    assert says in result.stderr
    assert KEY not in result.stderr
    assert "Traceback" not in result.stderr
