"""Kernels other than Python's, in real sandboxes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import mitos
from mitos import DirectSandbox
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture
def node(server: Server) -> Iterator[DirectSandbox]:
    with server.create("node") as sandbox:
        yield sandbox


def run(sandbox: DirectSandbox, code: str, *, timeout: int = 60) -> mitos.Execution:
    return sandbox.run_code(code, language="javascript", timeout=timeout)


def text_of(sandbox: DirectSandbox, code: str) -> str | None:
    execution = run(sandbox, code)
    assert execution.error is None, execution.error
    return execution.text


def error_of(sandbox: DirectSandbox, code: str, *, timeout: int = 60) -> tuple[str, str]:
    error = run(sandbox, code, timeout=timeout).error
    assert error is not None
    return error.name, error.value


def test_javascript_keeps_its_names_and_answers_with_the_last_value(node: DirectSandbox) -> None:
    assert text_of(node, "const a = 40; let b = 2; function sum() { return a + b }; a") == "40"
    assert text_of(node, "b += 1; sum()") == "43"
    assert text_of(node, "({ a, list: [1, 'x'] })") == "{ a: 40, list: [ 1, 'x' ] }"
    assert text_of(node, "_.a") == "40"
    assert text_of(node, "let none;") is None
    assert text_of(node, "5;") is None


def test_javascript_awaits_and_imports_at_the_top_level(node: DirectSandbox) -> None:
    assert (
        text_of(node, "const got = await new Promise((r) => setTimeout(() => r(7), 20)); got * 2")
        == "14"
    )
    assert text_of(node, "got") == "7"
    assert text_of(node, "(await import('node:path')).join('a', 'b')") == "'a/b'"
    assert text_of(node, "require('path').basename(process.cwd())") == "'workspace'"


def test_javascript_output_comes_in_order(node: DirectSandbox) -> None:
    execution = run(
        node,
        "console.log('one'); require('child_process').execSync('echo two', {stdio: 'inherit'});"
        "console.log('three'); console.error('aside')",
    )

    assert "".join(execution.logs["stdout"]) == "one\ntwo\nthree\n"
    assert "".join(execution.logs["stderr"]) == "aside\n"


def test_javascript_errors_show_the_cells_lines_only(node: DirectSandbox) -> None:
    execution = run(node, "function f() { throw new TypeError('no') }\nf()")

    assert execution.error is not None
    assert (execution.error.name, execution.error.value) == ("TypeError", "no")
    traceback = "\n".join(execution.error.traceback)
    assert "<cell 1>:2" in traceback
    assert "/opt/mitos" not in traceback
    assert "node:" not in traceback


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1 +", ("SyntaxError", "Unexpected end of input")),
        ("throw 'text'", ("Error", "text")),
        ("throw undefined", ("Error", "undefined")),
        ("await Promise.reject(new RangeError('late'))", ("RangeError", "late")),
        ("process.exit(3)", ("ProcessExit", "process.exit(3) ends the cell only")),
        (
            "setTimeout(() => { throw new Error('in a timer') }, 5); await new Promise(() => {})",
            ("Error", "in a timer"),
        ),
    ],
)
def test_a_javascript_cell_that_fails_ends_only_itself(
    node: DirectSandbox, code: str, expected: tuple[str, str]
) -> None:
    run(node, "const kept = 5")

    assert error_of(node, code) == expected
    assert text_of(node, "kept") == "5"


@pytest.mark.parametrize(
    "code",
    [
        "while (true);",
        "await new Promise(() => {})",
        "for (;;) Math.random()",
        "require('child_process').execSync('sleep 60')",
    ],
)
def test_a_javascript_cell_ends_at_its_deadline_and_the_state_stays(
    node: DirectSandbox, code: str
) -> None:
    run(node, "const kept = 5")

    name, value = error_of(node, code, timeout=1)
    assert name == "TimeoutError"
    assert "state is kept" in value
    assert text_of(node, "kept") == "5"


def test_javascript_that_cannot_be_interrupted_loses_its_kernel(node: DirectSandbox) -> None:
    run(node, "const kept = 5")

    name, value = error_of(node, "await null; while (true);", timeout=1)
    assert name == "TimeoutError"
    assert "state is lost" in value
    assert error_of(node, "kept")[0] == "ReferenceError"


def test_forks_of_a_javascript_kernel_draw_different_numbers(node: DirectSandbox) -> None:
    run(node, "const crypto2 = require('crypto'); let n = 1; crypto2.randomUUID(); Math.random()")
    draw = "[Math.random(), crypto2.randomUUID(), crypto2.randomBytes(8), crypto.randomUUID()]"

    children = node.fork(3)
    try:
        drawn = [text_of(sandbox, draw) for sandbox in (node, *children)]
        kept = [text_of(child, "n") for child in children]
    finally:
        for child in children:
            child.terminate()
    assert len(set(drawn)) == 4, drawn
    assert kept == ["1"] * 3


def test_bash_keeps_its_state_and_forks_go_on_from_it(sandbox: DirectSandbox) -> None:
    sandbox.run_code("x=5; cd /tmp; f() { echo f$x; }; RANDOM=1", language="bash")

    children = sandbox.fork(2)
    try:
        answers = [
            child.run_code("f; pwd; echo $RANDOM$RANDOM", language="bash") for child in children
        ]
    finally:
        for child in children:
            child.terminate()
    lines = ["".join(answer.logs["stdout"]).splitlines() for answer in answers]
    assert [found[:2] for found in lines] == [["f5", "/tmp"]] * 2
    assert lines[0][2] != lines[1][2]


def test_bash_ends_at_a_deadline_and_keeps_its_state(sandbox: DirectSandbox) -> None:
    sandbox.run_code("x=5; cd /tmp", language="bash")

    error = sandbox.run_code("y=6; sleep 60", language="bash", timeout=1).error
    assert error is not None
    assert error.name == "TimeoutError"
    after = sandbox.run_code("echo $x $y; pwd; exit 4", language="bash")
    assert "".join(after.logs["stdout"]) == "5 6\n/tmp\n"
    assert after.error is not None
    assert (after.error.name, after.error.value) == ("CommandFailed", "exit status 4")


def test_the_base_template_runs_bash_and_says_that_it_has_no_python(server: Server) -> None:
    with server.create("base") as sandbox:
        bash = sandbox.run_code("echo $BASH_VERSION", language="bash")
        python = sandbox.run_code("1")
        unknown = sandbox.run_code("1", language="cobol")

    assert "".join(bash.logs["stdout"]).startswith("5.")
    for execution in (python, unknown):
        assert execution.error is not None
        assert execution.error.name == "KernelUnavailable"
    assert python.error is not None
    assert "no interpreter" in python.error.value


@pytest.mark.parametrize(
    ("language", "die"),
    [("python", "import os; os.kill(os.getpid(), 9)"), ("bash", "kill -9 $$")],
)
def test_a_kernel_that_dies_in_a_cell_is_replaced(
    sandbox: DirectSandbox, language: str, die: str
) -> None:
    sandbox.run_code("x=1", language=language)
    began = time.monotonic()
    execution = sandbox.run_code(die, language=language)
    took_s = time.monotonic() - began

    assert execution.error is not None
    assert execution.error.name == "KernelDied"
    assert "state is lost" in execution.error.value
    assert took_s < 2
    again = sandbox.run_code(
        "print('ok')" if language == "python" else "echo ok", language=language
    )
    assert "".join(again.logs["stdout"]) == "ok\n"


def test_a_kernel_killed_from_outside_in_mid_cell_is_an_error(sandbox: DirectSandbox) -> None:
    sandbox.run_code("import os, time; open('/tmp/pid', 'w').write(str(os.getpid()))")
    sandbox.exec(
        "nohup sh -c 'sleep 0.5; kill -9 $(cat /tmp/pid); touch /tmp/killed' >/dev/null 2>&1 &"
    )

    execution = sandbox.run_code("time.sleep(50)")
    assert execution.error is not None
    assert execution.error.name == "KernelDied"
    assert sandbox.run_code("1 + 1").text == "2"
