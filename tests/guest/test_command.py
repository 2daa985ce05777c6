"""Commands of the real agent that are found again: their output, their end, their memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mitos.wire.link import Control, Fields, Frame, FrameType, Operation, Status, Tag

from .client import DEADLINE_S, AgentClient, Stream, exec_fields
from .conftest import Agent
from .test_link import resident_bytes

EEXIST, ESRCH = 17, 3
RING_BYTES = 8 << 20
ENDED_LIMIT = 64


def start(
    client: AgentClient, script: str, command_id: str = "job", *, keep: bool = True
) -> Stream:
    fields = exec_fields(("/bin/sh", "-c", script)).text(Tag.COMMAND_ID, command_id)
    return client.open(Operation.EXEC, fields.uint(Tag.KEEP, int(keep)))


def attach(client: AgentClient, offset: int = 0, command_id: str = "job") -> Stream:
    fields = Fields().text(Tag.COMMAND_ID, command_id).uint(Tag.OFFSET, offset)
    return client.open(Operation.ATTACH, fields)


def end(client: AgentClient, command_id: str = "job") -> Stream:
    return client.call(Operation.END_COMMAND, Fields().text(Tag.COMMAND_ID, command_id))


def commands(client: AgentClient) -> dict[str, Fields]:
    listing = client.call(Operation.COMMANDS).fields
    found = [Fields.decode(each) for each in listing.get_raws(Tag.COMMAND)]
    return {each.get_text(Tag.COMMAND_ID): each for each in found}


def report(client: AgentClient, stream: Stream) -> tuple[int, int]:
    """Where the output of an attached stream begins, and how much before it is lost."""
    client.wait_until(lambda: bool(stream.outputs[0]), DEADLINE_S)
    fields = Fields.decode(bytes(stream.outputs[0]))
    return fields.get_uint(Tag.OFFSET), fields.get_uint(Tag.LOST)


def detach(client: AgentClient, stream: Stream) -> None:
    client.cancel(stream)
    assert client.finish(stream).status is Status.CANCELED


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def has_ended(client: AgentClient, command_id: str = "job") -> bool:
    return bool(commands(client)[command_id].get_uint(Tag.ENDED))


def test_a_kept_command_lives_on_without_its_reader(client: AgentClient) -> None:
    first = start(client, "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; exit 5")
    client.wait_until(lambda: first.stdout == b"one\n", DEADLINE_S)

    detach(client, first)
    client.shell("touch /tmp/go")
    again = attach(client, offset=4)

    assert report(client, again) == (4, 0)
    client.finish(again)
    assert again.stdout == b"two\n"
    assert again.fields.get_int(Tag.EXIT_CODE) == 5


def test_a_command_that_is_not_kept_ends_with_its_reader(client: AgentClient) -> None:
    first = start(client, "sleep 31415", keep=False)

    detach(client, first)

    assert commands(client) == {}
    assert b"31415" not in client.exec("ps", "axo", "args").stdout


def test_the_whole_output_is_there_after_the_end_again_and_again(client: AgentClient) -> None:
    client.finish(start(client, "printf ab; printf cd >&2; sleep 0.1; printf ef; exit 3"))

    for offset, expected in ((0, (b"abef", b"cd")), (4, (b"ef", b"")), (6, (b"", b""))):
        again = client.finish(attach(client, offset))
        assert (again.stdout, again.stderr) == expected
        assert again.fields.get_int(Tag.EXIT_CODE) == 3


def test_what_went_over_the_limit_is_counted(client: AgentClient) -> None:
    detach(client, start(client, "head -c 20000000 /dev/zero | tr '\\0' x; echo end"))
    wait_for(lambda: has_ended(client))

    again = attach(client, 1000)
    offset, lost = report(client, again)
    client.finish(again)

    assert offset == 1000 + lost
    assert offset + len(again.stdout) == 20_000_004
    assert RING_BYTES * 0.9 < len(again.stdout) <= RING_BYTES
    assert again.stdout.endswith(b"xxend\n")


def test_a_second_reader_takes_over(client: AgentClient) -> None:
    first = start(client, "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two")
    client.wait_until(lambda: first.stdout == b"one\n", DEADLINE_S)

    second = attach(client)

    assert client.finish(first).status is Status.CANCELED
    client.shell("touch /tmp/go")
    assert client.finish(second).stdout == b"one\ntwo\n"


def test_a_reader_that_is_slow_holds_the_command_back(client: AgentClient) -> None:
    client.gives_credit = False
    stream = start(client, "head -c 20000000 /dev/zero; echo over >/tmp/over")
    client.wait_until(lambda: len(stream.stdout) == 1 << 18, DEADLINE_S)

    held = commands(client)["job"].get_uint(Tag.SIZE)
    client.gives_credit = True
    client.give_credit(stream)

    assert held < 1 << 20
    assert len(client.finish(stream).stdout) == 20_000_000


def test_a_forked_child_finds_what_its_parent_ran(client: AgentClient) -> None:
    kept = start(client, "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; exit 4")
    plain = start(client, "echo mine; sleep 0.5; echo still", "plain", keep=False)
    client.wait_until(lambda: kept.stdout == b"one\n" and plain.stdout == b"mine\n", DEADLINE_S)

    child = client.restored_child()
    child.identify(forked=True)
    child.shell("touch /tmp/go")

    again = child.finish(attach(child))
    assert (again.stdout, again.fields.get_int(Tag.EXIT_CODE)) == (b"one\ntwo\n", 4)
    assert child.finish(attach(child, command_id="plain")).stdout == b"mine\nstill\n"


def test_a_command_is_killed_by_its_id_with_all_it_started(client: AgentClient) -> None:
    stream = start(client, "setsid sleep 31415 & echo up; sleep 31415")
    client.wait_until(lambda: stream.stdout == b"up\n", DEADLINE_S)

    assert end(client).status is Status.OK
    client.finish(stream)

    assert stream.fields.get_uint(Tag.SIGNAL) == 9
    assert b"31415" not in client.exec("ps", "axo", "args").stdout
    assert end(client).status is Status.OK
    assert end(client).fields.get_uint(Tag.ERRNO) == ESRCH


def test_an_attached_reader_can_signal(client: AgentClient) -> None:
    stream = attach_after_start(
        client, "trap 'echo got; exit 6' TERM; echo up; while :; do sleep 0.02; done"
    )
    client.wait_until(lambda: stream.stdout == b"up\n", DEADLINE_S)

    signal = Fields().uint(Tag.SIGNAL, 15).encode()
    client.send(Frame(FrameType.CONTROL, stream.id, Control.SIGNAL, signal))

    assert client.finish(stream).stdout == b"up\ngot\n"
    assert stream.fields.get_int(Tag.EXIT_CODE) == 6


def attach_after_start(client: AgentClient, script: str) -> Stream:
    detach(client, start(client, script))
    return attach(client)


def test_ids_are_checked(client: AgentClient) -> None:
    detach(client, start(client, "sleep 60"))

    assert client.finish(start(client, "true")).fields.get_uint(Tag.ERRNO) == EEXIST
    assert client.finish(attach(client, command_id="no")).fields.get_uint(Tag.ERRNO) == ESRCH
    for bad in ("", "x" * 65, "a\0b"):
        assert client.finish(start(client, "true", bad)).status is Status.INVALID
    assert client.call(Operation.ATTACH).status is Status.INVALID


def test_a_start_that_failed_is_remembered_too(client: AgentClient) -> None:
    fields = exec_fields(("no-such-command",)).text(Tag.COMMAND_ID, "job").uint(Tag.KEEP, 1)
    client.call(Operation.EXEC, fields)

    again = client.finish(attach(client))

    assert again.status is Status.FAILED
    assert "no-such-command" in again.fields.get_text(Tag.MESSAGE)


def test_many_commands_leave_neither_descriptors_nor_memory(
    agent: Agent, client: AgentClient
) -> None:
    def run(count: int) -> None:
        for number in range(count):
            stream = start(client, "head -c 100000 /dev/zero", f"n{number}", keep=number % 2 == 0)
            assert len(client.finish(stream).stdout) == 100_000
            if number % 2 == 0:
                end(client, f"n{number}")

    run(20)
    before = open_descriptors(agent), resident_bytes(agent)
    run(200)
    after = open_descriptors(agent), resident_bytes(agent)

    assert commands(client) == {}
    assert after[0] == before[0]
    assert after[1] < before[1] + (1 << 20)


def test_only_the_last_ends_are_remembered(client: AgentClient) -> None:
    for number in range(ENDED_LIMIT + 3):
        client.finish(start(client, "true", f"n{number}"))

    assert commands(client).keys() == {f"n{number}" for number in range(3, ENDED_LIMIT + 3)}


def test_all_rings_together_are_bounded(agent: Agent, client: AgentClient) -> None:
    for number in range(8):
        detach(client, start(client, "head -c 9000000 /dev/zero", f"n{number}"))
    wait_for(lambda: all(each.get_uint(Tag.ENDED) for each in commands(client).values()))

    kept = [
        each.get_uint(Tag.SIZE) - each.get_uint(Tag.OFFSET) for each in commands(client).values()
    ]

    assert len(kept) == 8
    assert sum(kept) <= 32 << 20
    assert resident_bytes(agent) < 48 << 20


def open_descriptors(agent: Agent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
