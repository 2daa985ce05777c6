"""Cells of the bash kernel: one shell that lives from cell to cell."""

from __future__ import annotations

import json

import pytest

from mitos.wire.link import KernelEventKind, Status, Tag

from .client import AgentClient, Stream, identity_fields


def run(client: AgentClient, code: str, *, timeout_ms: int = 0) -> Stream:
    return client.run_code(code, language="bash", timeout_ms=timeout_ms)


def said(cell: Stream, kind: KernelEventKind = KernelEventKind.STDOUT) -> str:
    return b"".join(event.payload for event in cell.events if event.kind is kind).decode()


def failure(cell: Stream) -> tuple[str, str]:
    """Name and value of the one error of a cell."""
    (payload,) = [e.payload for e in cell.events if e.kind is KernelEventKind.ERROR]
    assert [KernelEventKind.ERROR, KernelEventKind.DONE] == [e.kind for e in cell.events[-2:]]
    assert cell.events[-1].payload == b"\1"
    body = json.loads(payload)
    return body["name"], body["value"]


def succeeded(cell: Stream) -> bool:
    return cell.events[-1].payload == b"\0"


def test_it_runs_in_the_workspace(client: AgentClient) -> None:
    cell = run(client, "pwd; echo to stderr >&2")

    assert said(cell) == "/workspace\n"
    assert said(cell, KernelEventKind.STDERR) == "to stderr\n"
    assert succeeded(cell)


def test_variables_functions_and_the_directory_stay(client: AgentClient) -> None:
    run(
        client,
        "x=41; declare -A m=([k]='a b'); f() { echo \"f $1\"; }; alias hi='echo hi'; cd /tmp",
    )

    assert said(run(client, 'echo $((x + 1)) "${m[k]}"; f 2; hi; pwd')) == "42 a b\nf 2\nhi\n/tmp\n"


def test_a_command_that_fails_is_an_error_and_the_state_stays(client: AgentClient) -> None:
    run(client, "x=5")
    cell = run(client, "echo before\nno-such-command")

    assert failure(cell) == ("CommandFailed", "exit status 127")
    assert (
        said(cell, KernelEventKind.STDERR) == "bash: line 2: no-such-command: command not found\n"
    )
    assert said(run(client, "echo $x")) == "5\n"


def test_a_syntax_error_is_an_error(client: AgentClient) -> None:
    cell = run(client, "if true; then")

    assert failure(cell) == ("CommandFailed", "exit status 2")
    assert "syntax error" in said(cell, KernelEventKind.STDERR)


@pytest.mark.parametrize(
    "code", ["exit 3", "set -e; false; echo not reached", "set -u; echo $undefined"]
)
def test_a_cell_that_ends_the_shell_ends_only_itself(client: AgentClient, code: str) -> None:
    run(client, "x=5; list=(1 '2 3'); f() { echo f; }; cd /tmp; export E=e")
    cell = run(client, f"y=6; {code}")

    assert failure(cell)[0] == "CommandFailed"
    assert said(cell) == ""
    again = run(client, 'set +eu; echo $x $y "${list[1]}" $(pwd); f; env | grep ^E=')
    assert said(again) == "5 6 2 3 /tmp\nf\nE=e\n"
    assert said(again, KernelEventKind.STDERR) == ""
    assert succeeded(run(client, "exit 0"))


def test_shells_that_follow_one_another_leave_no_descriptors(client: AgentClient) -> None:
    def count() -> str:
        # A pipeline would count its own pipes, while the shell has not closed them.
        return said(run(client, "entries=(/proc/$$/fd/*); echo ${#entries[@]}"))

    run(client, "exit 1")
    first = count()
    for _ in range(5):
        run(client, "exit 1")

    assert count() == first


def test_options_of_the_cells_stay_theirs(client: AgentClient) -> None:
    run(client, "set -euf")

    assert failure(run(client, "false; echo not reached"))[0] == "CommandFailed"
    assert said(run(client, "[[ $- = *e*f*u* ]] && echo kept")) == "kept\n"


@pytest.mark.parametrize(
    "code",
    [
        "sleep 60",
        "while :; do :; done",
        "for i in 1 2 3; do sleep 60; done",
        "sleep 60 | cat",
        "y=$(sleep 60); echo not reached",
        "(sleep 60); echo not reached",
        "f() { sleep 60; }; f",
    ],
)
def test_at_the_deadline_the_cell_ends_and_the_state_stays(client: AgentClient, code: str) -> None:
    run(client, "x=5")
    cell = run(client, f"echo begun; {code}", timeout_ms=500)

    assert failure(cell)[0] == "TimeoutError"
    assert "state of the shell is kept" in failure(cell)[1]
    assert said(cell) == "begun\n"
    assert said(run(client, "echo $x")) == "5\n"


def test_a_cell_that_ignores_its_deadline_loses_the_shell(client: AgentClient) -> None:
    run(client, "x=5")
    cell = run(client, "trap '' INT; while :; do sleep 60; done", timeout_ms=300)

    assert failure(cell)[0] == "TimeoutError"
    assert "state is lost" in failure(cell)[1]
    assert said(run(client, "echo x=$x")) == "x=\n"


def test_a_background_job_survives_another_cells_deadline(client: AgentClient) -> None:
    run(client, "sleep 300 & job=$!")
    run(client, "sleep 60", timeout_ms=300)

    assert succeeded(run(client, "kill -0 $job && kill $job"))


def test_a_background_job_that_never_stops_writing_does_not_hold_a_cell(
    client: AgentClient,
) -> None:
    assert succeeded(run(client, "yes & job=$!"))
    assert succeeded(run(client, "kill $job"))


def test_output_comes_while_the_cell_runs(client: AgentClient) -> None:
    cell = client.start_code("echo early; sleep 60", language="bash")
    client.wait_until(lambda: b"early" in cell.stdout)
    client.cancel(cell)

    assert client.finish(cell).status is Status.CANCELED
    assert succeeded(run(client, "true"))


def test_much_output_arrives_whole_and_before_the_end(client: AgentClient) -> None:
    cell = run(client, "seq 200000; echo last >&2")

    assert said(cell) == "".join(f"{i}\n" for i in range(1, 200001))
    assert said(cell, KernelEventKind.STDERR) == "last\n"


def test_a_slow_reader_loses_nothing(client: AgentClient) -> None:
    client.gives_credit = False
    cell = client.start_code("seq 200000", language="bash")
    client.wait_until(lambda: len(cell.stdout) > 262144 - 6)
    assert client.shell("echo other").stdout == b"other\n"
    client.gives_credit = True
    client.give_credit(cell)

    assert said(client.finish(cell)) == "".join(f"{i}\n" for i in range(1, 200001))


def test_there_is_no_input(client: AgentClient) -> None:
    assert said(run(client, "cat; read line || echo none")) == "none\n"


def test_a_shell_that_is_killed_is_an_error_and_the_next_cell_works(client: AgentClient) -> None:
    cell = run(client, "x=5; echo last words; kill -9 $$")

    assert failure(cell)[0] == "KernelDied"
    assert said(cell) == "last words\n"
    assert said(run(client, "echo x=$x")) == "x=\n"


def test_code_of_any_bytes_is_taken(client: AgentClient) -> None:
    cell = run(client, "echo 'grüße \U0001f40d' \"a\0b\" 'back\\slash'")

    assert said(cell) == "grüße \U0001f40d ab back\\slash\n"


def test_random_numbers_differ_after_each_identity(client: AgentClient) -> None:
    run(client, "RANDOM=1; : $RANDOM")
    client.identify()
    first = said(run(client, "echo $RANDOM $RANDOM $RANDOM; RANDOM=1"))
    client.identify()

    assert said(run(client, "echo $RANDOM $RANDOM $RANDOM")) != first


def test_random_numbers_repeat_when_the_sandbox_says_so(client: AgentClient) -> None:
    client.identify(identity_fields(env={"MITOS_RESEED_AFTER_FORK": "0"}))
    first = said(run(client, "RANDOM=1; echo $RANDOM; RANDOM=1"))
    client.identify()

    assert said(run(client, "echo $RANDOM")) == first


def test_a_live_shell_gets_changed_variables(client: AgentClient) -> None:
    run(client, "true")
    client.identify(identity_fields(env={"NEW": "a = 'b'\n", "OTHER": ""}))

    assert said(run(client, 'printf %s "$NEW$OTHER"; env | grep -c ^NEW=')) == "a = 'b'\n1\n"


def test_the_kernels_of_two_languages_run_side_by_side(client: AgentClient) -> None:
    slow = client.start_code("sleep 60", language="bash")
    cell = client.run_code("6 * 7")

    assert cell.events[-1].payload == b"\0"
    client.cancel(slow)
    assert client.finish(slow).status is Status.CANCELED


def test_it_is_not_known_to_a_sandbox_without_bash(client: AgentClient) -> None:
    client.identify(identity_fields(env={"PATH": "/nowhere"}))
    cell = run(client, "true")

    assert cell.status is Status.UNAVAILABLE
    assert "no interpreter" in cell.fields.get_text(Tag.MESSAGE)
