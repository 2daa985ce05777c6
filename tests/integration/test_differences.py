"""What the engine says is different from Linux, is: each sentence of its facts is shown.

A sentence that is no longer true of a new release fails here, and is then marked as old. The run of
`scripts/test --matrix` on Debian's program shows the old ones.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from mitos.engine import select
from tests.integration.conftest import Server
from tests.machine import running_release

HERE = Path(__file__).parent
PROGRAM = HERE / "differences.py"
DIFFERENCES = select.find(select.AUTO).facts.differences

MORE_THAN_ONE = "`/proc/sys/kernel/random/boot_id`"
"""Shown here, since it takes several sandboxes."""

ELSEWHERE = {
    "`ls -l`": (
        "engine/gvisor/test_roots.py",
        "test_links_of_the_root_are_listed_without_an_error",
    ),
    "A user inside": (
        "integration/test_processes.py",
        "test_a_program_gets_eagain_at_the_limit_and_the_sandbox_goes_on",
    ),
    "A closed TCP connection": (
        "integration/test_closed_connections.py",
        "test_none_is_kept_in_a_sandbox_and_its_fork",
    ),
    "A sandbox that passes its memory limit": (
        "engine/gvisor/test_engine.py",
        "test_a_machine_past_its_memory_limit_ends_with_that_reason",
    ),
}
"""Shown by another test."""


def shown_by_the_program() -> set[str]:
    calls = (
        node for node in ast.walk(ast.parse(PROGRAM.read_text())) if isinstance(node, ast.Call)
    )
    return {
        str(ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "shows"
    }


def test_every_sentence_is_shown_once() -> None:
    beginnings = [*shown_by_the_program(), MORE_THAN_ONE, *ELSEWHERE]

    for difference in DIFFERENCES:
        found = [text for text in beginnings if difference.text.startswith(text)]
        assert len(found) == 1, difference.text
    assert len(beginnings) == len(DIFFERENCES)


@pytest.mark.parametrize(("file", "name"), ELSEWHERE.values())
def test_what_is_shown_elsewhere_is(file: str, name: str) -> None:
    assert f"def {name}(" in (HERE.parent / file).read_text()


@pytest.mark.real
def test_a_sandbox_is_different_as_its_engine_says(server: Server) -> None:
    host_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with server.create() as sandbox:
        sandbox.files.write("/tmp/differences.py", PROGRAM.read_bytes())
        ended = sandbox.exec(f"python3 /tmp/differences.py {host_memory}", timeout=30)

    assert ended.exit_code == 0, ended.stderr
    is_old_program = not running_release().is_own
    expected = {
        beginning: is_old_program or not difference.is_old
        for beginning in shown_by_the_program()
        for difference in DIFFERENCES
        if difference.text.startswith(beginning)
    }
    assert json.loads(ended.stdout) == expected


@pytest.mark.real
def test_sandboxes_of_a_template_and_forks_have_one_boot_id(server: Server) -> None:
    with server.create() as first, server.create() as second:
        (child,) = first.fork(1)
        with child:
            said = {
                sandbox.exec("cat /proc/sys/kernel/random/boot_id").stdout
                for sandbox in (first, second, child)
            }

    assert len(said) == 1
