"""The link of the real agent: flow control, freezing, forks, hostile frames."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest

from mitos.wire.link import (
    INITIAL_CREDIT,
    VERSION,
    Control,
    Fields,
    Frame,
    FrameType,
    Operation,
    Status,
    Tag,
)

from .client import AgentClient, exec_fields, identity_fields
from .conftest import Agent

AGENT_MEMORY_LIMIT = 8 << 20


def resident_bytes(agent: Agent) -> int:
    lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def test_the_first_frame_is_hello(agent: Agent) -> None:
    fields = Fields.decode(agent.client.link_frame(FrameType.HELLO).payload)

    assert fields.get_uint(Tag.VERSION) == VERSION
    assert len(fields.get_text(Tag.BUILD)) == 16


def test_ping_is_answered(client: AgentClient) -> None:
    client.ping()


def test_an_unknown_operation_is_invalid(client: AgentClient) -> None:
    for operation in (0, 30, 31, 32, 255):
        assert client.call(operation).status is Status.INVALID


def test_fields_that_are_cut_are_invalid(client: AgentClient) -> None:
    stream = client.open(Operation.EXEC)
    client.finish(stream)
    client.streams[99] = type(stream)(99)
    client.send(Frame(FrameType.OPEN, 99, Operation.STAT, b"\x15\x00\x00\x00\x09/tmp"))

    assert client.finish(client.streams[99]).status is Status.INVALID


def test_a_stream_id_can_be_used_again(client: AgentClient) -> None:
    client.shell("true")
    client._next_id = 1

    assert client.shell("echo again").stdout == b"again\n"


def test_frames_that_cross_with_close_are_ignored(client: AgentClient) -> None:
    ended = client.shell("true")
    for frame in (
        Frame(FrameType.DATA, ended.id, 0, b"late"),
        Frame(FrameType.EOF, ended.id, 0),
        Frame(FrameType.CREDIT, ended.id, 0, bytes(4)),
        Frame(FrameType.CONTROL, ended.id, Control.SIGNAL),
        Frame(FrameType.CANCEL, ended.id),
    ):
        client.send(frame)

    client.ping()


def test_too_many_streams_are_refused(client: AgentClient) -> None:
    fields = exec_fields(["cat"], stdin=True)
    for _ in range(256):
        client.open(Operation.EXEC, fields)

    assert client.call(Operation.STAT, Fields().text(Tag.PATH, "/")).status is Status.UNAVAILABLE


# ---- flow control ----


def test_a_sender_stops_when_the_credit_is_used_up(agent: Agent, client: AgentClient) -> None:
    client.gives_credit = False
    stream = client.start_shell("head -c 40000000 /dev/zero")
    client.wait_until(lambda: len(stream.stdout) == INITIAL_CREDIT)

    assert not client.receive(0.3)
    assert resident_bytes(agent) < AGENT_MEMORY_LIMIT


def test_a_slow_reader_holds_back_no_other_stream(client: AgentClient) -> None:
    client.gives_credit = False
    slow = client.start_shell("head -c 10000000 /dev/zero; echo >&2")
    client.wait_until(lambda: len(slow.stdout) == INITIAL_CREDIT)
    client.write_file("file", b"x" * 1000)

    assert client.shell("echo quick").stdout == b"quick\n"
    assert len(client.read_file("file").stdout) == 1000
    client.gives_credit = True
    client.give_credit(slow)
    assert len(client.finish(slow).stdout) == 10_000_000


def test_tens_of_megabytes_pass_with_little_memory(agent: Agent, client: AgentClient) -> None:
    streams = [client.start_shell("head -c 20000000 /dev/zero") for _ in range(4)]
    peak = 0
    while not all(stream.closed for stream in streams):
        client.receive(5)
        peak = max(peak, resident_bytes(agent))

    assert [len(stream.stdout) for stream in streams] == [20_000_000] * 4
    assert peak < AGENT_MEMORY_LIMIT


@pytest.mark.timeout(60)
def test_memory_does_not_grow_with_use(agent: Agent, client: AgentClient) -> None:
    def use_everything() -> None:
        for _ in range(60):
            client.shell("echo out; exit 1", env={"A": "x" * 10_000})
            client.exec("no-such-command")
            client.write_file("file", bytes(100_000))
            client.read_file("file")
            client.on_path(Operation.LIST, "/usr/bin")
            client.on_path(Operation.REMOVE, "file")
            client.run_code("1")
            client.identify()
            client.cancel(client.start_code("2"))

    use_everything()
    before = resident_bytes(agent)
    for _ in range(4):
        use_everything()

    assert resident_bytes(agent) - before < 256 << 10


def test_a_process_that_does_not_read_holds_back_its_sender(
    agent: Agent, client: AgentClient
) -> None:
    stream = client.open(Operation.EXEC, exec_fields(["sleep", "60"], stdin=True))
    with pytest.raises(TimeoutError):
        client.write(stream, bytes(4 << 20), timeout_s=0.5)

    assert stream.send_credit == 0
    assert resident_bytes(agent) < AGENT_MEMORY_LIMIT
    client.ping()


def test_a_reader_that_takes_nothing_from_the_link_bounds_the_agent(
    agent: Agent, client: AgentClient
) -> None:
    for _ in range(30):
        client.start_shell("head -c 3000000 /dev/zero")
    time.sleep(1)

    assert resident_bytes(agent) < AGENT_MEMORY_LIMIT
    client.wait_until(lambda: all(stream.closed for stream in client.streams.values()))


def test_data_beyond_the_credit_ends_the_agent(agent: Agent, client: AgentClient) -> None:
    stream = client.open(Operation.EXEC, exec_fields(["sleep", "60"], stdin=True))
    # The pipe takes one portion, for which credit comes back; the rest is too much.
    client.send_bytes(Frame(FrameType.DATA, stream.id, 0, bytes(65536)).encode() * 6)

    assert agent.wait_exit() == 1


# ---- identity ----


def test_an_identity_is_applied(client: AgentClient) -> None:
    fields = identity_fields(hostname="my-box", env={"KEY": "value"})
    answer = client.identify(fields)

    assert answer.status is Status.OK
    assert answer.fields.get_raw(Tag.GENERATION) == fields.get_raw(Tag.GENERATION)
    assert abs(answer.fields.get_uint(Tag.WALL_CLOCK) - time.time_ns()) < 10**9
    machine_id = fields.get_text(Tag.MACHINE_ID)
    script = "hostname; cat /etc/hostname /etc/machine-id; echo $KEY $HOME; ls -A /etc"
    assert client.shell(script).stdout.decode().split("\n")[:4] == [
        *("my-box", "my-box", machine_id, "value /root"),
    ]


def test_an_identity_may_come_again(client: AgentClient) -> None:
    stream = client.start_shell("sleep 0.5; echo done")
    client.identify(identity_fields(hostname="first", env={"A": "1", "B": "1"}))
    client.identify(identity_fields(hostname="second", env={"A": "2"}))

    assert client.shell("hostname; echo $A $B").stdout == b"second\n2 1\n"
    assert client.finish(stream).stdout == b"done\n", "without FORKED open streams stay"


@pytest.mark.parametrize(
    "change",
    [
        (Tag.GENERATION, bytes(15)),
        (Tag.ENTROPY, bytes(31)),
        (Tag.ENTROPY, bytes(257)),
        (Tag.MACHINE_ID, b"A" * 32),
        (Tag.MACHINE_ID, b"a" * 31),
        (Tag.HOSTNAME, b""),
        (Tag.HOSTNAME, b"x" * 65),
        (Tag.HOSTNAME, b"a\nb"),
        (Tag.ENV, b"no equals sign"),
        (Tag.ENV, b"A=\0"),
    ],
)
def test_an_invalid_identity_is_refused(client: AgentClient, change: tuple[Tag, bytes]) -> None:
    before = client.shell("hostname").stdout

    assert client.identify(identity_fields().raw(*change)).status is Status.INVALID
    assert client.shell("hostname").stdout == before


def test_an_identity_needs_generation_and_entropy(client: AgentClient) -> None:
    assert client.identify(Fields().raw(Tag.GENERATION, bytes(16))).status is Status.INVALID
    assert client.identify(Fields().raw(Tag.ENTROPY, bytes(32))).status is Status.INVALID


# ---- freezing and forking ----


def test_a_frozen_agent_sends_nothing(client: AgentClient) -> None:
    stream = client.start_shell("while :; do echo tick; sleep 0.01; done")
    client.wait_until(lambda: len(stream.stdout) > 20)
    client.freeze()

    assert not client.receive(0.5)
    client.thaw()
    seen = len(stream.stdout)
    client.wait_until(lambda: len(stream.stdout) > seen + 20)


def test_freezing_under_load_ends_at_a_frame_boundary(client: AgentClient) -> None:
    streams = [client.start_shell("head -c 30000000 /dev/zero") for _ in range(3)]
    cell = client.start_code("print('x' * 3_000_000)")
    for _ in range(20):
        client.wait_until(lambda: client.receive(0.01) or True)
        client.freeze()
        assert client._decoder.at_boundary
        assert not client.receive(0.02)
        client.thaw()

    for stream in streams:
        assert len(client.finish(stream).stdout) == 30_000_000
    assert client.finish(cell).fields.get_int(Tag.EXIT_CODE) == 0


def test_work_done_while_frozen_is_told_after_the_thaw(client: AgentClient) -> None:
    stream = client.start_shell("sleep 0.2; echo done; exit 4")
    client.freeze()
    time.sleep(0.5)
    client.thaw()

    result = client.finish(stream)
    assert (result.stdout, result.fields.get_int(Tag.EXIT_CODE)) == (b"done\n", 4)


@pytest.mark.parametrize("kind", ["command", "cell"])
def test_a_deadline_stands_still_while_the_agent_is_frozen(client: AgentClient, kind: str) -> None:
    frozen_s, timeout_s = 1.0, 0.8
    if kind == "cell":
        client.run_code("import time")
    began = time.monotonic()
    if kind == "command":
        stream = client.start_shell("sleep 60", timeout_ms=int(timeout_s * 1000))
    else:
        stream = client.start_code("time.sleep(60)", timeout_ms=int(timeout_s * 1000))
    client.freeze()
    time.sleep(frozen_s)
    client.thaw()

    result = client.finish(stream)
    spent_s = time.monotonic() - began
    assert spent_s >= frozen_s + timeout_s
    if kind == "command":
        assert result.fields.get_uint(Tag.TIMED_OUT)
        ran_s = result.fields.get_uint(Tag.DURATION) / 1e9
        assert timeout_s <= ran_s <= spent_s - frozen_s
    else:
        assert b"TimeoutError" in result.stdout


def test_a_kept_command_of_a_child_has_what_was_left_of_its_time(client: AgentClient) -> None:
    fields = exec_fields(["sleep", "60"], timeout_ms=1500).text(Tag.COMMAND_ID, "kept")
    client.open(Operation.EXEC, fields)
    child = client.restored_child()
    time.sleep(2)
    child.identify(forked=True)
    began = time.monotonic()

    attached = child.open(Operation.ATTACH, Fields().text(Tag.COMMAND_ID, "kept"))
    result = child.finish(attached)
    assert result.fields.get_uint(Tag.TIMED_OUT)
    assert 1.4 <= result.fields.get_uint(Tag.DURATION) / 1e9 <= 1.5 + time.monotonic() - began


def test_a_child_forgets_the_streams_of_its_parent(client: AgentClient) -> None:
    client.start_shell("i=0; while :; do i=$((i+1)); echo $i >/tmp/n; echo tick; sleep 0.01; done")
    client.open(Operation.WRITE_FILE, Fields().text(Tag.PATH, "/workspace/half"))
    client.start_code("import time; time.sleep(0.5); kept = [1]")
    client.start_code("kept.append(2)")
    client.wait_until(lambda: b"tick" in client.streams[1].stdout)
    child = client.restored_child()

    assert child.identify(forked=True).status is Status.OK
    assert child.shell("ls -A /workspace").stdout == b""
    before = int(child.shell("cat /tmp/n").stdout)
    time.sleep(0.3)
    assert int(child.shell("cat /tmp/n").stdout) > before, "the process lives on"
    assert b'"text": "[1, 2]"' in child.run_code("kept").stdout, "accepted cells were run"
    assert list(child.streams) == [1, 3, 5, 7, 9], "only the child's own streams were heard"


def test_a_forgotten_command_is_not_held_back_by_its_output(client: AgentClient) -> None:
    client.gives_credit = False
    stream = client.start_shell("head -c 5000000 /dev/zero; echo finished >/tmp/finished")
    client.wait_until(lambda: len(stream.stdout) == INITIAL_CREDIT)
    child = client.restored_child()
    child.identify(forked=True)

    assert child.shell("sleep 0.3; cat /tmp/finished").stdout == b"finished\n"


def test_a_forgotten_command_has_no_timeout_and_keeps_its_input(client: AgentClient) -> None:
    fields = exec_fields(["sh", "-c", "read line; echo $line >/tmp/line; sleep 60"], stdin=True)
    client.open(Operation.EXEC, fields.uint(Tag.TIMEOUT, 500))
    child = client.restored_child()
    child.identify(forked=True)

    script = "sleep 0.8; ps axo args | grep -c '[r]ead line'; cat /tmp/line 2>&1"
    assert child.shell(script).stdout.startswith(b"1\n")
    assert b"No such file" in child.shell("cat /tmp/line 2>&1").stdout, "the input is still open"


def test_a_forked_identity_reseeds_an_idle_kernel(client: AgentClient) -> None:
    client.run_code("import random; random.seed(1)")
    child = client.restored_child()

    assert child.identify(forked=True).status is Status.OK
    assert b"0.13436424411240122" not in child.run_code("random.random()").stdout


def test_a_child_that_is_not_frozen_is_forked_too(client: AgentClient) -> None:
    stream = client.start_shell("sleep 60")
    assert client.identify(forked=True).status is Status.OK

    client.streams.pop(stream.id)
    assert client.shell("echo fine").stdout == b"fine\n"


# ---- hostile frames ----


def header(length: int, stream: int, kind: int, channel: int, zero: int = 0) -> bytes:
    return struct.pack("!IIBBH", length, stream, kind, channel, zero)


OPEN_CAT = Frame(FrameType.OPEN, 1, Operation.EXEC, exec_fields(["cat"], stdin=True).encode())

VIOLATIONS = {
    "noise": b"\xff" * 64,
    "reserved bytes": header(0, 0, 12, 0, 1),
    "unknown type": header(0, 0, 77, 0),
    "huge payload": header(0xFFFFFFFF, 1, FrameType.OPEN, 2),
    "even id": Frame(FrameType.OPEN, 2, Operation.EXEC).encode(),
    "data on a stream that the agent would open": Frame(FrameType.DATA, 2, 0, b"x").encode(),
    "a stream opened twice": OPEN_CAT.encode() * 2,
    "empty data": OPEN_CAT.encode() + header(0, 1, FrameType.DATA, 0),
    "data on an output": OPEN_CAT.encode() + Frame(FrameType.DATA, 1, 1, b"x").encode(),
    "data after its end": OPEN_CAT.encode()
    + Frame(FrameType.EOF, 1, 0).encode()
    + Frame(FrameType.DATA, 1, 0, b"x").encode(),
    "two ends": OPEN_CAT.encode() + Frame(FrameType.EOF, 1, 0).encode() * 2,
    "control with a cut field": OPEN_CAT.encode()
    + Frame(FrameType.CONTROL, 1, Control.SIGNAL, b"\x20\x00").encode(),
    "the agent's own frames": Frame(FrameType.HELLO).encode(),
    "close": Frame(FrameType.PONG, payload=bytes(8)).encode(),
    "a frame while frozen": Frame(FrameType.FREEZE, payload=bytes(8)).encode()
    + Frame(FrameType.PING, payload=bytes(8)).encode(),
    "an identity that is no fork while frozen": Frame(FrameType.FREEZE, payload=bytes(8)).encode()
    + Frame(FrameType.OPEN, 1, Operation.IDENTIFY, identity_fields().encode()).encode(),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation_ends_the_agent(agent: Agent, client: AgentClient, data: bytes) -> None:
    client.streams[1] = client.open(Operation.STAT)
    client.finish(client.streams[1])
    client.streams[1] = type(client.streams[1])(1)
    client.send_bytes(data)

    assert agent.wait_exit() == 1


def test_random_bytes_end_the_agent(agent: Agent, client: AgentClient) -> None:
    client.send_bytes(os.urandom(1 << 12))

    assert agent.wait_exit() == 1


def test_the_agent_ends_with_the_link(agent: Agent, client: AgentClient) -> None:
    client.start_shell("sleep 60")
    assert agent.process.stdin is not None
    agent.process.stdin.close()

    assert agent.wait_exit() == 1
