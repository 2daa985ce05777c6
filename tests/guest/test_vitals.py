"""Processes and signals in the real agent."""

from __future__ import annotations

import errno

import pytest

from mitos.agent.process import ProcessEntry, ProcessReading
from mitos.wire.link import Fields, Operation, Status, Tag

from .client import AgentClient, Stream


def reading(client: AgentClient) -> ProcessReading:
    listed = client.call(Operation.PROCESSES)
    assert listed.status is Status.OK
    return ProcessReading.of(listed.stdout, listed.fields)


def start_sleep(client: AgentClient, seconds: int) -> tuple[Stream, ProcessEntry]:
    """A `sleep` of its own length, and its entry."""
    stream = client.start_shell(f"echo $$; exec sleep {seconds}")
    client.wait_until(lambda: stream.stdout.endswith(b"\n"))
    pid = int(stream.stdout)
    for _ in range(1000):
        (entry,) = [entry for entry in reading(client).entries if entry.pid == pid]
        if entry.name == "sleep" and entry.resident_bytes > 0:
            return stream, entry
    raise AssertionError("the shell did not become a sleep")


def signal(client: AgentClient, pid: int, number: int) -> Stream:
    return client.call(Operation.SIGNAL, Fields().uint(Tag.PID, pid).uint(Tag.SIGNAL, number))


def test_every_process_is_read_with_its_parent_and_memory(client: AgentClient) -> None:
    _, entry = start_sleep(client, 1001)

    found = {each.pid: each for each in reading(client).entries}
    assert found[1].name == "agent"
    assert found[entry.ppid].name == "mitos-exec"
    assert found[entry.ppid].ppid == 1
    assert entry.state in "SRD"
    assert entry.resident_bytes > 100_000


def test_cpu_time_grows_while_a_process_computes(client: AgentClient) -> None:
    stream = client.start_shell("echo $$; while :; do :; done")
    client.wait_until(lambda: stream.stdout.endswith(b"\n"))
    pid = int(stream.stdout)

    def cpu_ns() -> int:
        return next(each.cpu_ns for each in reading(client).entries if each.pid == pid)

    first, before = reading(client), cpu_ns()
    for _ in range(10_000):
        if cpu_ns() >= before + 30_000_000:
            break
    last = reading(client)
    assert cpu_ns() >= before + 30_000_000
    assert last.clock_ns - first.clock_ns >= 20_000_000


def test_a_name_with_parentheses_and_blanks_is_read_whole(client: AgentClient) -> None:
    client.shell("cp $(command -v sleep) '/tmp/a) R 7 (b'")
    stream = client.start_shell("echo; exec '/tmp/a) R 7 (b' 1002")
    client.wait_until(lambda: stream.stdout == b"\n")

    for _ in range(1000):
        if named := [each for each in reading(client).entries if each.name == "a) R 7 (b"]:
            break
    assert [entry.state in "SRD" for entry in named] == [True]


def test_a_long_table_waits_for_credit(client: AgentClient) -> None:
    client.shell("for i in $(seq 300); do sleep 1003 & done >/dev/null 2>&1")

    assert len([e for e in reading(client).entries if e.name in ("sleep", "sh")]) >= 300


def test_a_signal_reaches_the_process(client: AgentClient) -> None:
    stream, entry = start_sleep(client, 1004)

    assert signal(client, entry.pid, 15).status is Status.OK
    assert client.finish(stream).fields.get_uint(Tag.SIGNAL) == 15


def test_a_process_that_is_not_there_is_told(client: AgentClient) -> None:
    for pid in (30_000, 1 << 31, (1 << 64) - 1):
        refused = signal(client, pid, 15)
        assert (refused.status, refused.fields.get_uint(Tag.ERRNO)) == (
            Status.FAILED,
            errno.ESRCH,
        )


def test_the_agent_and_its_supervisors_cannot_be_signalled(client: AgentClient) -> None:
    _, entry = start_sleep(client, 1005)

    for pid in (1, entry.ppid):
        refused = signal(client, pid, 9)
        assert (refused.status, refused.fields.get_uint(Tag.ERRNO)) == (Status.FAILED, errno.EPERM)
    assert entry.pid in [each.pid for each in reading(client).entries]


@pytest.mark.parametrize(("pid", "number"), [(0, 15), (5, 0), (5, 65), (5, (1 << 64) - 1)])
def test_numbers_out_of_range_are_refused(client: AgentClient, pid: int, number: int) -> None:
    assert signal(client, pid, number).status is Status.INVALID


def test_vitals_count_the_processes(client: AgentClient) -> None:
    before = client.call(Operation.VITALS).fields.get_uint(Tag.PROCESS_COUNT)
    start_sleep(client, 1006)

    after = client.call(Operation.VITALS).fields.get_uint(Tag.PROCESS_COUNT)
    assert after == before + 2, "the command and its supervisor"
