"""Terminals on real sandboxes, seen through a terminal emulator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

import mitos
from mitos import aio
from tests.integration.conftest import Server
from tests.integration.screen import DEADLINE_S, Person, at_terminal

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

TEMPLATE = "terminal"
"""Python and the programs that draw on the whole screen."""


@pytest.fixture(scope="module")
def template(server: Server) -> str:
    (server.home / "templates.toml").write_text(
        f'[templates.{TEMPLATE}]\npackages = ["less", "procps", "python3", "vim-tiny"]\n'
    )
    answer = httpx.post(f"{server.url}/v1/templates", json={"id": TEMPLATE}, timeout=240)
    assert answer.status_code == 200, answer.text
    return TEMPLATE


@pytest.fixture
def sandbox(server: Server, template: str) -> Iterator[mitos.DirectSandbox]:
    with server.create(template) as created:
        yield created


@pytest.fixture
def person(sandbox: mitos.DirectSandbox) -> Iterator[Person]:
    with at_terminal(sandbox) as person:
        yield person


def wait_for_processes(sandbox: mitos.DirectSandbox, name: str, count: int) -> None:
    """Waits until so many processes of that name run."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := sandbox.exec("ps axo comm").stdout.split().count(name)) != count:
        assert time.monotonic() < deadline, f"{found} of {name}"


# Full-screen programs


@pytest.mark.parametrize(("cols", "rows"), [(80, 24), (50, 12)])
def test_an_editor_draws_the_whole_screen(
    sandbox: mitos.DirectSandbox, cols: int, rows: int
) -> None:
    sandbox.files.write("/workspace/poem", "".join(f"line {n}\n" for n in range(1, 101)))

    with at_terminal(sandbox, cols, rows) as person:
        person.type("TERM=linux vim.tiny -u NONE poem\n")
        lines = person.wait_until(lambda lines: lines[rows - 2] == f"line {rows - 1}")

        assert [f"line {n}" for n in range(1, rows)] == lines[:-1]
        assert "poem" in lines[-1]


def test_an_editor_redraws_when_the_window_changes(
    sandbox: mitos.DirectSandbox, person: Person
) -> None:
    sandbox.files.write("/workspace/poem", "".join(f"line {n}\n" for n in range(1, 101)))
    person.type("TERM=linux vim.tiny -u NONE poem\n")
    person.wait_until(lambda lines: lines[22] == "line 23")

    for cols, rows in ((60, 15), (120, 40)):
        person.resize(cols, rows)
        lines = person.wait_until(lambda lines, rows=rows: lines[rows - 2] == f"line {rows - 1}")
        assert [f"line {n}" for n in range(1, rows)] == lines[:-1]


def test_an_editor_writes_what_is_typed(sandbox: mitos.DirectSandbox, person: Person) -> None:
    person.type("TERM=linux vim.tiny -u NONE note\n")
    person.wait_until(lambda lines: "note" in lines[-1])
    person.type("ihello, grün\x1b:wq\n")
    person.wait_for("#")

    assert "hello, grün\n" == sandbox.files.read("/workspace/note")


def test_top_shows_the_processes_again_and_again(person: Person) -> None:
    person.type("top -d 0.5\n")
    first = person.wait_until(lambda lines: any(line.endswith("top") for line in lines))
    person.wait_until(lambda lines: lines[0].startswith("top - ") and lines[0] != first[0])

    assert any(line.endswith("agent") for line in first)
    person.type("q")
    person.wait_for("#")


def test_a_python_prompt_edits_its_lines(person: Person) -> None:
    person.type("python3 -q\n")
    person.wait_for(">>>")
    person.type("x = 6 * 8\x7f7\n")
    person.type("x\n")
    person.wait_for("42")
    person.type("\x1b[A\x1b[A\x7f6\n")  # up twice: the assignment again, now 6 * 6
    person.type("x\n")
    person.wait_for("36")
    person.type("exit()\n")
    person.wait_for("#")


# Control characters


def test_ctrl_c_ends_the_foreground_job_and_not_the_shell(
    sandbox: mitos.DirectSandbox, person: Person
) -> None:
    person.type("sleep 1000\n")
    wait_for_processes(sandbox, "sleep", 1)
    person.type("\x03")
    wait_for_processes(sandbox, "sleep", 0)

    assert "alive" == person.run("echo alive")
    assert any(line.startswith("^C") for line in person.screen.display)


def test_ctrl_c_at_the_prompt_drops_the_line(person: Person) -> None:
    person.type("echo never")
    person.wait_until(lambda lines: any("never" in line for line in lines))
    person.type("\x03")

    assert "this" == person.run("echo this")
    assert b"not found" not in person.raw


def test_ctrl_c_works_behind_a_line_typed_ahead(
    sandbox: mitos.DirectSandbox, person: Person
) -> None:
    person.type("sleep 1001\n")
    wait_for_processes(sandbox, "sleep", 1)
    person.type("echo typed ahead\n")
    person.type("\x03")

    wait_for_processes(sandbox, "sleep", 0)
    assert "alive" == person.run("echo alive")


def test_ctrl_c_is_the_programs_own_when_it_asked_for_raw_input(person: Person) -> None:
    person.type("stty raw -echo; printf '\\002'; head -c 1 | od -An -tx1; stty sane\n")
    start = len(person.wait_for_output(b"\2"))
    person.type("\x03")

    person.wait_for_output(b" 03", start)


def test_ctrl_z_stops_the_job_and_fg_goes_on(sandbox: mitos.DirectSandbox, person: Person) -> None:
    person.type("sleep 1002\n")
    wait_for_processes(sandbox, "sleep", 1)
    person.type("\x1a")
    person.wait_until(lambda lines: any("Stopped" in line for line in lines))
    assert "T" == sandbox.exec("ps -C sleep -o stat=").stdout[:1]

    start = len(person.raw)
    person.type("fg\n")
    person.wait_for_output(b"sleep 1002", start)
    person.type("\x03")
    wait_for_processes(sandbox, "sleep", 0)
    assert "alive" == person.run("echo alive")


def test_ctrl_d_ends_the_shell(person: Person) -> None:
    person.type("\x04")

    assert 0 == person.handle.wait(DEADLINE_S)


# Bytes


def test_characters_split_over_messages_arrive_whole(person: Person) -> None:
    for byte in "clear; echo größer, 日本, 🦉\n".encode().replace(b"\n", b"\r"):
        person.type(bytes([byte]))

    person.wait_until(lambda lines: any(line.startswith("größer, ") for line in lines))
    assert "größer, 日本, 🦉\r\n".encode() in person.raw


def test_raw_bytes_go_both_ways_unchanged(person: Person) -> None:
    """Every byte arrives as it is, and comes back as it is."""
    person.type("stty raw -echo; printf '\\002'; head -c 256; stty sane\n")
    start = len(person.wait_for_output(b"\2"))
    person.type(bytes(range(256)))

    assert bytes(range(256)) in person.wait_for_output(b"\xfe\xff", start)


def test_a_flood_of_output_arrives_whole_and_in_order(person: Person) -> None:
    person.type("seq 1 60000; echo end$((1))\n")
    person.wait_until(lambda lines: "end1" in lines)

    numbers = [int(line) for line in bytes(person.raw).split(b"\r\n") if line.isdigit()]
    assert list(range(1, 60001)) == numbers


# Life and death


def test_the_exit_code_is_the_shells(person: Person) -> None:
    person.type("exit 7\n")

    assert 7 == person.handle.wait(DEADLINE_S)


def test_hanging_up_kills_the_session(sandbox: mitos.DirectSandbox, person: Person) -> None:
    person.type("setsid sleep 1003 & sleep 1004\n")
    wait_for_processes(sandbox, "sleep", 2)
    person.handle.kill()

    wait_for_processes(sandbox, "sleep", 0)
    assert -1 == person.handle.wait(0)


def test_a_fork_leaves_the_parents_terminals_alone_and_gives_the_child_none(
    server: Server, sandbox: mitos.DirectSandbox, person: Person
) -> None:
    person.run("here=parent")
    (child,) = sandbox.fork(1)
    with child:
        assert "parent" == person.run("echo $here")
        child.exec("touch /tmp/mine")
        assert "no" == person.run("test -e /tmp/mine || echo no")
        person.resize(90, 30)
        assert "30 90" == person.run("stty size")

        with at_terminal(child, 70, 20) as another:
            assert "child" == another.run("echo ${here-child}")
            assert "20 70" == another.run("stty size")
            assert "30 90" == person.run("stty size")


def test_terminals_of_one_sandbox_do_not_see_each_other(sandbox: mitos.DirectSandbox) -> None:
    with at_terminal(sandbox) as one, at_terminal(sandbox, 60, 20) as other:
        one.run("x=1")
        assert "unset 20 60" == other.run("echo ${x-unset} $(stty size)")
        other.type("sleep 1005\n")
        wait_for_processes(sandbox, "sleep", 1)
        one.type("\x03")
        assert "1" == one.run("pgrep -c sleep")


def test_the_asynchronous_handle_does_the_same(server: Server, template: str) -> None:
    async def session() -> tuple[bytes, int, int]:
        seen, other = bytearray(), bytearray()
        async with await aio.create(template, base_url=server.url, api_key="") as sandbox:
            async with asyncio.timeout(DEADLINE_S):
                shell = await sandbox.pty(seen.extend, cols=64, rows=16)
                await shell.send_input(b"stty size; cat\r")
                while b"16 64\r\n" not in seen:
                    await asyncio.sleep(0.01)
                await shell.send_input(b"ready\r")
                while seen.count(b"ready") < 2:  # as typed, and from cat: ^C is for cat
                    await asyncio.sleep(0.01)
                await shell.resize(65, 17)
                await shell.send_input(b"\x03")
                while not seen.rstrip().endswith((b"$", b"#")):  # ^C drops what is typed ahead
                    await asyncio.sleep(0.01)
                await shell.send_input(b"stty size; exit 5\r")
                code = await shell.wait()
                killed = await sandbox.pty(other.extend)
                await killed.kill()
                return bytes(seen), code, await killed.wait()

    seen, code, killed = asyncio.run(session())
    assert b"17 65\r\n" in seen
    assert (5, -1) == (code, killed)
