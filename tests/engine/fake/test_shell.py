"""The fake guest's commands behave as a small `/bin/sh` does."""

from __future__ import annotations

import asyncio
import time

import pytest

from mitos.node.guest import ExecRequest, Terminal
from tests.engine.fake.conftest import Bench, Sandbox


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo hello", "hello\n"),
        ("printf 'a\\tb %s %03d\\n' x 7", "a\tb x 007\n"),
        ("echo 'a  b' \"c  d\" e\\ f", "a  b c  d e f\n"),
        ("X=1; echo \"$X\" '$X' ${X}2 ${Y:-no}", "1 $X 12 no\n"),
        ("X='a  b'; echo $X; echo \"$X\"", "a b\na  b\n"),
        ("false || echo or; true && echo and; false && echo never", "or\nand\n"),
        ("! false && echo turned", "turned\n"),
        ("cd /tmp; pwd; cd; pwd", "/tmp\n/root\n"),
        ("export A=1; env | grep ^A=; B=2; env | grep -c ^B= || true", "A=1\n0\n"),
        ("A=1 sh -c 'echo $A'; echo ${A:-unset}", "1\nunset\n"),
        ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); echo $i; done", "1\n2\n3\n"),
        ("for x in a b c; do [ $x = b ] && continue; echo $x; done", "a\nc\n"),
        ("until false; do break; done; echo out", "out\n"),
        ("if test -d /tmp; then echo dir; else echo none; fi", "dir\n"),
        ('f() { echo "$1-$#"; return 3; }; f x y; echo $?', "x-2\n3\n"),
        ("echo $(echo in; echo side) `echo back`", "in side back\n"),
        ("echo $((7/2)) $((-7/2)) $((-7%3)) $((2+3*4))", "3 -3 -1 14\n"),
        ("(cd /tmp; X=1; pwd); pwd; echo ${X:-kept}", "/tmp\n/workspace\nkept\n"),
        ("seq 5 | tail -n 2 | wc -l", "2\n"),
        ("yes | head -n 2", "y\ny\n"),
        ("head -c 4 /dev/urandom | wc -c", "4\n"),
        ("echo one > f; echo two >> f; cat f; cat < f", "one\ntwo\none\ntwo\n"),
        ("echo quiet > /dev/null; cat /dev/null", ""),
        ("cat missing 2>&1 | wc -l", "1\n"),
        ("{ echo a; echo b; } > f; cat f", "a\nb\n"),
        ("mkdir -p a/b; touch a/b/c; ls a; ls a/b; rm -rf a; ls", "b\nc\n"),
        ("touch x.py y.py z; echo *.py '*.py' *.no", "x.py y.py *.py *.no\n"),
        ("ln -s /tmp t; cd t; pwd", "/tmp\n"),
        (
            "echo 'echo script $1' > s; chmod +x s; ./s arg; sh s other",
            "script arg\nscript other\n",
        ),
        ("echo a # a comment\necho b", "a\nb\n"),
        ("exec echo gone; echo never", "gone\n"),
        ("echo x | read v; eval 'w=1; echo $w'", "1\n"),
        ("sleep 0.01 & wait $!; echo $?", "0\n"),
    ],
)
async def test_a_script_prints(sandbox: Sandbox, script: str, expected: str) -> None:
    ran = await sandbox.sh(script)

    assert (expected, "") == (ran.stdout, ran.stderr)


@pytest.mark.parametrize(
    ("script", "code", "complaint"),
    [
        ("exit 7", 7, ""),
        ("exit 256", 0, ""),
        ("false", 1, ""),
        ("nosuch", 127, "sh: 1: nosuch: not found\n"),
        ("cat nosuch", 1, "cat: nosuch: No such file or directory\n"),
        ("echo x > /nosuch/f", 2, "sh: 1: /nosuch/f: No such file or directory\n"),
        ("/workspace", 126, "sh: 1: /workspace: Permission denied\n"),
        ("echo 'open", 2, "sh: 1: Syntax error: Unterminated quoted string\n"),
        ("echo a; )", 2, 'sh: 1: Syntax error: ")" unexpected\n'),
        ("if true", 2, "sh: 1: Syntax error: end of file unexpected\n"),
        ("echo $((1/0))", 2, "sh: 1: arithmetic expression: '1/0'\n"),
        ("echo $((2**9))", 2, "sh: 1: arithmetic expression: '2**9'\n"),
        ("printf '%99999d' 1", 2, "%99999d: invalid directive\n"),
        ("f() { f; }; f", 2, "sh: 1: functions call one another too deep\n"),
        ("(" * 200 + ")" * 200, 2, "sh: 1: Syntax error: nested too deep\n"),
    ],
)
async def test_a_script_fails(sandbox: Sandbox, script: str, code: int, complaint: str) -> None:
    ran = await sandbox.sh(script)

    assert (code, complaint) == (ran.exit.exit_code, ran.stderr)
    assert "ok\n" == await sandbox.out("echo ok")


async def test_a_script_that_never_stops_recursing_leaves_the_machine_alive(
    sandbox: Sandbox,
) -> None:
    await sandbox.sh('x=\'eval "$x"\'; eval "$x"')

    assert "ok\n" == await sandbox.out("echo ok")


async def test_errors_go_to_their_own_channel(sandbox: Sandbox) -> None:
    ran = await sandbox.sh("echo out; echo err 1>&2; cat nosuch 2>/dev/null")

    assert ("out\n", "err\n", 1) == (ran.stdout, ran.stderr, ran.exit.exit_code)


async def test_a_program_is_run_without_a_shell(sandbox: Sandbox) -> None:
    assert "$HOME *\n" == (await sandbox.exec("echo", "$HOME", "*")).stdout

    missing = await sandbox.exec("nosuch")
    assert (1, "nosuch: No such file or directory") == (missing.exit.exit_code, missing.exit.error)
    nowhere = await sandbox.exec("pwd", cwd="/nosuch")
    assert "/nosuch: No such file or directory" == nowhere.exit.error


async def test_a_command_has_the_environment_of_the_machine_and_its_own(sandbox: Sandbox) -> None:
    ran = await sandbox.sh("echo $BOOTED $MINE; pwd", env={"MINE": "too"}, cwd="/tmp")

    assert "yes too\n/tmp\n" == ran.stdout


async def test_output_comes_while_the_command_runs(sandbox: Sandbox) -> None:
    request = ExecRequest(["/bin/sh", "-c", "echo first; sleep 30"], timeout_s=60)
    async with sandbox.guest.exec(request) as command:
        output = await asyncio.wait_for(anext(aiter(command)), 2)

    assert b"first\n" == output.data
    assert "ok\n" == await sandbox.out("echo ok")


async def test_input_is_read_as_it_comes(sandbox: Sandbox) -> None:
    request = ExecRequest(["cat"], timeout_s=10, stdin=True)
    async with sandbox.guest.exec(request) as command:
        outputs = aiter(command)
        await command.write(b"one")
        first = await asyncio.wait_for(anext(outputs), 2)
        await command.write(b"two")
        await command.close_input()
        rest = b"".join([piece.data async for piece in outputs])

    assert (b"one", b"two") == (first.data, rest)
    assert command.exit is not None
    assert 0 == command.exit.exit_code


async def test_without_input_a_command_reads_nothing(sandbox: Sandbox) -> None:
    assert "" == (await sandbox.exec("cat")).stdout


@pytest.mark.parametrize(
    "script",
    ["sleep 60", "while :; do :; done", "sleep 60 & wait", "sleep 60 &", "yes > /dev/null | cat"],
)
async def test_a_timeout_ends_everything_the_command_started(
    bench: Bench, sandbox: Sandbox, script: str
) -> None:
    began_at = time.monotonic()

    ran = await sandbox.sh(script, timeout_s=0.2)

    assert 124 == ran.exit.exit_code
    assert time.monotonic() - began_at < 3
    (machine,) = bench.engine.machines.values()
    await _until_no_jobs(machine.guest.shell.jobs)


async def test_leaving_a_command_ends_it(bench: Bench, sandbox: Sandbox) -> None:
    request = ExecRequest(["/bin/sh", "-c", "sleep 60 & sleep 60"], timeout_s=60)
    async with sandbox.guest.exec(request):
        await asyncio.sleep(0.05)

    (machine,) = bench.engine.machines.values()
    await _until_no_jobs(machine.guest.shell.jobs)


async def _until_no_jobs(jobs: object) -> None:
    async with asyncio.timeout(3):
        while jobs:
            await asyncio.sleep(0.01)


async def test_a_command_that_kills_itself_ended_by_signal(sandbox: Sandbox) -> None:
    assert -1 == (await sandbox.sh("kill -9 $$; echo never")).exit.exit_code


async def test_a_signal_reaches_the_command(sandbox: Sandbox) -> None:
    async with sandbox.guest.exec(ExecRequest(["sleep", "60"], timeout_s=60)) as command:
        await command.signal(15)
        assert [] == [piece async for piece in command]

    assert command.exit is not None
    assert -1 == command.exit.exit_code


async def test_a_background_job_outlives_its_command(sandbox: Sandbox) -> None:
    counter = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.01; done"
    ran = await sandbox.sh(f"nohup sh -c '{counter}' >/dev/null 2>&1 & echo $!")
    await asyncio.sleep(0.1)
    first = int(await sandbox.out("cat /tmp/n"))
    await asyncio.sleep(0.1)

    assert first < int(await sandbox.out("cat /tmp/n"))
    await sandbox.sh(f"kill {ran.stdout}")
    last = await sandbox.out("cat /tmp/n")
    await asyncio.sleep(0.05)
    assert last == await sandbox.out("cat /tmp/n")


async def test_a_background_job_that_holds_the_output_keeps_the_command_open(
    sandbox: Sandbox,
) -> None:
    ran = await sandbox.sh("{ sleep 0.1; echo late; } & echo early")

    assert "early\nlate\n" == ran.stdout


async def test_a_shell_on_a_terminal_answers_line_by_line(sandbox: Sandbox) -> None:
    request = ExecRequest(["/bin/bash", "-l"], stdin=True, terminal=Terminal("xterm", 90, 20))
    screen = b""
    async with sandbox.guest.exec(request) as command:
        await command.write(b"echo $TERM\r")
        await command.write(b"exit 5\r")
        async for piece in command:
            screen += piece.data

    assert b"echo $TERM\r\n" in screen
    assert b"\r\nxterm\r\n" in screen
    assert command.exit is not None
    assert 5 == command.exit.exit_code


async def test_control_c_interrupts_what_runs_on_a_terminal(sandbox: Sandbox) -> None:
    request = ExecRequest(["cat"], stdin=True, terminal=Terminal())
    async with sandbox.guest.exec(request) as command:
        await command.write(b"\x03")
        async with asyncio.timeout(3):
            assert b"^C" in b"".join([piece.data async for piece in command])

    assert command.exit is not None
    assert -1 == command.exit.exit_code
