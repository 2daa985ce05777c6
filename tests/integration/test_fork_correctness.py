"""One test for each way in which a forked sandbox could be wrong. All against the real engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

import mitos
from mitos import DirectSandbox
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@contextmanager
def forked(sandbox: DirectSandbox, count: int) -> Iterator[list[DirectSandbox]]:
    """Children that are terminated afterwards."""
    with ExitStack() as stack:
        yield [stack.enter_context(child) for child in sandbox.fork(count)]


def outputs(children: list[DirectSandbox], command: str) -> list[str]:
    """What the command prints in each child."""
    results = [child.exec(command) for child in children]
    assert [r.exit_code for r in results] == [0] * len(children), results
    return [r.stdout for r in results]


def values(children: list[DirectSandbox], expression: str) -> list[str]:
    """What the expression is in each child's live interpreter."""
    results = [child.run_code(expression) for child in children]
    assert [r.error for r in results] == [None] * len(children), results
    return [str(r.text) for r in results]


def assert_all_differ(found: list[str]) -> None:
    assert len(set(found)) == len(found), found


def test_siblings_read_different_bytes_from_urandom(sandbox: DirectSandbox) -> None:
    with forked(sandbox, 3) as children:
        assert_all_differ(outputs([sandbox, *children], "head -c 32 /dev/urandom | od -An -tx1"))


def test_siblings_draw_different_uuids_in_a_live_interpreter(sandbox: DirectSandbox) -> None:
    sandbox.run_code("import uuid; uuid.uuid4()")

    with forked(sandbox, 3) as children:
        assert_all_differ(values([sandbox, *children], "str(uuid.uuid4())"))


def test_siblings_draw_different_random_numbers_in_a_live_interpreter(
    sandbox: DirectSandbox,
) -> None:
    sandbox.run_code("import random; random.seed(7); random.random()")

    with forked(sandbox, 3) as children:
        assert_all_differ(values([sandbox, *children], "random.random()"))


def test_siblings_draw_different_secrets_in_a_live_interpreter(sandbox: DirectSandbox) -> None:
    sandbox.run_code("import secrets; secrets.token_hex()")

    with forked(sandbox, 3) as children:
        assert_all_differ(values([sandbox, *children], "secrets.token_hex()"))


def test_a_fresh_sandbox_differs_from_another_of_its_template(server: Server) -> None:
    with server.create() as one, server.create() as other:
        assert_all_differ(values([one, other], "__import__('random').random()"))
        assert_all_differ(outputs([one, other], "cat /etc/machine-id"))


def test_siblings_have_different_hostnames(sandbox: DirectSandbox) -> None:
    with forked(sandbox, 2) as children:
        family = [sandbox, *children]

        assert [s.id.lower() for s in family] == [h.strip() for h in outputs(family, "hostname")]
        assert [s.id.lower() for s in family] == [
            h.strip() for h in outputs(family, "cat /etc/hostname")
        ]


def test_siblings_have_different_machine_ids(sandbox: DirectSandbox) -> None:
    with forked(sandbox, 2) as children:
        found = outputs([sandbox, *children], "cat /etc/machine-id")

        assert_all_differ(found)
        assert [len(machine_id) for machine_id in found] == [33] * 3


def test_a_childs_wall_clock_is_the_hosts(sandbox: DirectSandbox) -> None:
    with forked(sandbox, 2) as children:
        for child in children:
            before = time.time()
            inside = float(child.exec("date +%s.%N").stdout)
            in_kernel = float(str(child.run_code("import time; time.time()").text))

            assert before - 1 <= inside <= time.time() + 1
            assert before - 1 <= in_kernel <= time.time() + 1


COUNTER = """
i=0
while :; do
  i=$((i+1))
  echo "$i $(cat /proc/uptime) $(date +%s%N)" >> /tmp/ticks
  sleep 0.01
done
"""


def test_all_children_go_on_from_one_instant(sandbox: DirectSandbox) -> None:
    """A process keeps a counter in memory and writes it to a file; every child shares one past.

    Each line carries the wall clock, so lines written after the fork differ between children. The
    lines all of them share are those written before it: as many for every pair of children.
    """
    sandbox.files.write("/tmp/counter.sh", COUNTER)
    sandbox.exec("nohup sh /tmp/counter.sh >/dev/null 2>&1 &")
    wait_for_lines(sandbox, 20)

    with forked(sandbox, 4) as children:
        for child in children:
            wait_for_lines(child, lines_now(child) + 10)
        histories = [child.files.read("/tmp/ticks").splitlines() for child in children]

    for history in histories:
        counted = [int(line.split()[0]) for line in history]
        assert list(range(1, len(history) + 1)) == counted, "a tick was lost or counted twice"
    shared = {common_length(histories[0], other) for other in histories[1:]}
    assert len(shared) == 1, f"the children's pasts end at different ticks: {shared}"
    assert all(len(history) > shared.copy().pop() for history in histories), "a counter stopped"


def test_memory_and_file_of_a_live_interpreter_agree_in_every_child(
    sandbox: DirectSandbox,
) -> None:
    sandbox.run_code(
        "import threading, time\n"
        "n, running = 0, True\n"
        "def count():\n"
        "    global n\n"
        "    with open('/tmp/n', 'w') as f:\n"
        "        while running:\n"
        "            n += 1\n"
        "            f.seek(0); f.write(f'{n:09}'); f.flush()\n"
        "            time.sleep(0.001)\n"
        "thread = threading.Thread(target=count); thread.start()\n"
    )

    with forked(sandbox, 3) as children:
        for child in [*children, sandbox]:
            stopped = child.run_code("running = False; thread.join(); n")
            assert f"{int(str(stopped.text)):09}" == child.files.read("/tmp/n")


def test_equal_memory_in_all_children_of_a_still_process(sandbox: DirectSandbox) -> None:
    sandbox.run_code("state = {'step': 12, 'plan': list(range(1000))}")
    sandbox.run_code("open('/tmp/step', 'w').write(str(state['step']))")

    with forked(sandbox, 4) as children:
        assert values(children, "state['step'], sum(state['plan'])") == ["(12, 499500)"] * 4
        assert outputs(children, "cat /tmp/step") == ["12"] * 4


def test_the_parents_later_writes_never_show_in_a_child(sandbox: DirectSandbox) -> None:
    sandbox.files.write("/workspace/shared.txt", "before")
    sandbox.run_code("value = 'before'")

    with forked(sandbox, 2) as children:
        sandbox.files.write("/workspace/shared.txt", "after")
        sandbox.files.write("/workspace/new.txt", "after")
        sandbox.run_code("value = 'after'")

        assert outputs(children, "cat /workspace/shared.txt") == ["before"] * 2
        assert values(children, "value") == ["'before'"] * 2
        assert not any(child.files.exists("/workspace/new.txt") for child in children)


def test_a_childs_writes_show_neither_in_its_sibling_nor_in_the_parent(
    sandbox: DirectSandbox,
) -> None:
    with forked(sandbox, 2) as (one, other):
        one.files.write("/workspace/mine.txt", "one")
        one.run_code("mine = 1")

        assert not other.files.exists("/workspace/mine.txt")
        assert not sandbox.files.exists("/workspace/mine.txt")
        assert getattr(other.run_code("mine").error, "name", None) == "NameError"


def test_a_child_whose_handshake_fails_is_destroyed_and_the_fork_says_so(
    server: Server, sandbox: DirectSandbox
) -> None:
    """A child that cannot take a machine-id of its own must never be served."""
    sandbox.exec("rm -f /etc/machine-id && mkdir /etc/machine-id && touch /etc/machine-id/x")

    with pytest.raises(mitos.AgentRunError) as caught:
        sandbox.fork(2)

    assert caught.value.status == 500
    assert caught.value.remediation
    rows = mitos.SandboxServer(server.url).list_sandboxes()
    assert [sandbox.id] == [row["id"] for row in rows]
    assert sandbox.exec("echo alive").stdout == "alive\n"
    sandbox.exec("rm -r /etc/machine-id")
    with forked(sandbox, 1) as (child,):
        assert child.exec("echo child").stdout == "child\n"


def test_executables_run_in_every_child_before_its_first_command(sandbox: DirectSandbox) -> None:
    sandbox.files.mkdir("/etc/mitos/after-fork.d")
    sandbox.files.write("/etc/mitos/after-fork.d/note", "#!/bin/sh\nhostname >> /tmp/forks\n")
    sandbox.exec("chmod +x /etc/mitos/after-fork.d/note")

    with forked(sandbox, 2) as children:
        assert outputs(children, "cat /tmp/forks") == [f"{c.id.lower()}\n" for c in children]
    assert not sandbox.files.exists("/tmp/forks")


def test_an_executable_that_fails_makes_the_fork_fail(sandbox: DirectSandbox) -> None:
    sandbox.files.mkdir("/etc/mitos/after-fork.d")
    sandbox.files.write("/etc/mitos/after-fork.d/bad", "#!/bin/sh\necho no license; exit 9\n")
    sandbox.exec("chmod +x /etc/mitos/after-fork.d/bad")

    with pytest.raises(mitos.AgentRunError) as caught:
        sandbox.fork(1)

    assert "/etc/mitos/after-fork.d/bad" in str(caught.value)
    assert "exit code 9: no license" in str(caught.value.cause)
    assert "remove that executable" in str(caught.value.remediation)
    assert sandbox.exec("echo alive").stdout == "alive\n"


def test_a_hook_of_a_kernel_that_does_not_end_makes_the_fork_fail(sandbox: DirectSandbox) -> None:
    sandbox.run_code("import mitos_kernel, time; mitos_kernel.after_fork(lambda: time.sleep(600))")

    with pytest.raises(mitos.AgentRunError) as caught:
        sandbox.fork(1)

    assert "did not take its new identity" in str(caught.value)
    assert "hooks" in str(caught.value.cause)
    assert sandbox.run_code("1 + 1").text == "2"


def test_a_background_process_lives_on_in_parent_and_child(sandbox: DirectSandbox) -> None:
    sandbox.exec(
        "nohup sh -c 'while :; do date +%N > /tmp/b; mv /tmp/b /tmp/beat; sleep 0.02; done'"
        " >/dev/null 2>&1 &"
    )

    with forked(sandbox, 1) as (child,):
        for each in (sandbox, child):
            each.exec("until test -e /tmp/beat; do sleep 0.01; done")
            first = each.exec("cat /tmp/beat; sleep 0.2; cat /tmp/beat").stdout.split()
            assert first[0] != first[1]


def test_a_grandchild_inherits_from_its_parent_not_from_its_grandparent(
    sandbox: DirectSandbox,
) -> None:
    sandbox.run_code("path = ['root']")

    with forked(sandbox, 1) as (child,):
        child.run_code("path.append('child')")
        sandbox.run_code("path.append('elsewhere')")
        with forked(child, 1) as (grandchild,):
            assert grandchild.run_code("path").text == "['root', 'child']"


def test_twenty_forks_in_a_chain_keep_a_flat_latency(server: Server) -> None:
    """Each child is forked from the last one: cost must not pile up along the chain."""
    durations_s: list[float] = []
    current = server.create()
    try:
        current.run_code("depth = 0")
        for _ in range(20):
            started = time.perf_counter()
            (child,) = current.fork(1)
            assert child.exec("echo 1").stdout == "1\n"
            durations_s.append(time.perf_counter() - started)
            current.terminate()
            current = child
            current.run_code("depth += 1")
        assert current.run_code("depth").text == "20"
    finally:
        current.terminate()

    first, last = statistics.median(durations_s[:5]), statistics.median(durations_s[-5:])
    assert last < 2 * first, f"forks grew slower along the chain: {durations_s}"


def lines_now(sandbox: DirectSandbox) -> int:
    return int(sandbox.exec("wc -l < /tmp/ticks 2>/dev/null || echo 0").stdout)


def wait_for_lines(sandbox: DirectSandbox, count: int) -> None:
    deadline = time.monotonic() + 30
    while lines_now(sandbox) < count:
        assert time.monotonic() < deadline, "the counter does not count"
        time.sleep(0.02)


def common_length(one: list[str], other: list[str]) -> int:
    """How many lines two histories share from the start."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
