"""The real agent when its server is another one all of a sudden."""

from __future__ import annotations

import os
import time

import pytest

from mitos.wire.link import Fields, Frame, FrameType, Operation, Status, Tag

from .client import DEADLINE_S, AgentClient, exec_fields
from .conftest import Agent
from .test_command import attach, commands, report, start, wait_for


@pytest.fixture
def served(client: AgentClient) -> AgentClient:
    """An agent that knows its token."""
    assert client.identify().status is Status.OK
    return client


def is_alive(client: AgentClient, word: str) -> bool:
    return client.shell(f"pgrep -f {word}").fields.get_int(Tag.EXIT_CODE) == 0


def test_it_says_who_it_is(served: AgentClient) -> None:
    later = served.new_server()

    assert later.link_frame(FrameType.HELLO).payload.count(b"sb") == 1
    assert later.shell("echo fine").stdout == b"fine\n"


def test_it_can_be_taken_over_again_and_again(served: AgentClient) -> None:
    for round_number in range(20):
        served = served.new_server()
        assert served.shell(f"echo {round_number}").stdout == f"{round_number}\n".encode()


@pytest.mark.parametrize("sent", [1, 11, 12, 13, 4096, 65_000])
def test_half_a_frame_is_dropped(served: AgentClient, sent: int) -> None:
    assert served.write_file("/workspace/file", b"before").status is Status.OK
    writing = served.open(Operation.WRITE_FILE, Fields().text(Tag.PATH, "/workspace/file"))
    frame = Frame(FrameType.DATA, writing.id, 0, os.urandom(1 << 16)).encode()
    served.send_bytes(frame[:sent])

    later = served.new_server()

    assert later.read_file("/workspace/file").stdout == b"before"
    assert later.shell("ls /workspace").stdout == b"file\n"


def test_a_request_that_was_half_sent_does_not_happen(served: AgentClient) -> None:
    request = exec_fields(("/bin/sh", "-c", "touch /workspace/made")).encode()
    frame = Frame(FrameType.OPEN, 99, Operation.EXEC, request).encode()
    served.send_bytes(frame[:-1])

    later = served.new_server()

    assert later.shell("ls /workspace").stdout == b""


def test_what_was_half_read_is_dropped(served: AgentClient, agent: Agent) -> None:
    served.start_shell("head -c 3000000 /dev/zero")
    assert agent.process.stdout is not None
    for _ in range(3):
        os.read(agent.process.stdout.fileno(), 777)

    later = served.new_server()

    assert later.shell("echo fine").stdout == b"fine\n"


def test_a_link_full_of_answers_can_be_taken_over(served: AgentClient) -> None:
    for number in range(1, 4000, 2):
        nonce = number.to_bytes(8, "big")
        served.send(Frame(FrameType.OPEN, number + 9000, Operation.COMMANDS))
        served.send(Frame(FrameType.PING, payload=nonce))

    later = served.new_server()

    assert later.shell("echo fine").stdout == b"fine\n"


def test_a_frozen_agent_thaws(served: AgentClient) -> None:
    served.freeze()

    later = served.new_server()

    assert later.shell("echo fine").stdout == b"fine\n"


@pytest.mark.parametrize("before", [Frame(FrameType.THAW).encode(), b"half"])
def test_a_first_word_is_heard_behind_older_bytes(served: AgentClient, before: bytes) -> None:
    """The kernel of a machine that stands still keeps what a snapshot finds in the pipe."""
    served.freeze()

    later = served.new_server(before=before)

    assert later.shell("echo fine").stdout == b"fine\n"


def test_a_kept_command_goes_on_and_loses_nothing(served: AgentClient) -> None:
    lines = "".join(f"line {number}\n" for number in range(200_000)).encode()
    start(served, "seq -f 'line %.0f' 0 199999; sleep 0.2; echo end")

    later = served.new_server()
    stream = attach(later)

    assert report(later, stream) == (0, 0)
    later.finish(stream, DEADLINE_S)
    assert stream.stdout == lines + b"end\n"
    assert stream.fields.get_int(Tag.EXIT_CODE) == 0


def test_a_kept_command_keeps_its_deadline(served: AgentClient) -> None:
    fields = exec_fields(("/bin/sh", "-c", "sleep 1000"), timeout_ms=1500)
    served.open(Operation.EXEC, fields.text(Tag.COMMAND_ID, "job").uint(Tag.KEEP, 1))

    later = served.new_server()

    assert later.finish(attach(later)).fields.get_uint(Tag.TIMED_OUT) == 1


def test_an_ended_command_is_found(served: AgentClient) -> None:
    served.finish(start(served, "echo done; exit 3"))

    later = served.new_server()
    stream = later.finish(attach(later))

    assert stream.stdout == b"done\n"
    assert stream.fields.get_int(Tag.EXIT_CODE) == 3


def test_a_kept_command_that_is_being_killed_ends(served: AgentClient) -> None:
    start(served, "trap '' TERM; sleep 1000 & wait")
    served.open(Operation.END_COMMAND, Fields().text(Tag.COMMAND_ID, "job"))

    later = served.new_server()

    wait_for(lambda: bool(commands(later)["job"].get_uint(Tag.ENDED)))


@pytest.mark.parametrize("command_id", ["", "job"])
def test_a_command_that_is_not_kept_is_killed(served: AgentClient, command_id: str) -> None:
    fields = exec_fields(("/bin/sh", "-c", "setsid sleep 4711 & sleep 4711"))
    if command_id:
        fields.text(Tag.COMMAND_ID, command_id)
    served.open(Operation.EXEC, fields)
    wait_for(lambda: is_alive(served, "[s]leep.4711"))

    later = served.new_server()

    wait_for(lambda: not is_alive(later, "[s]leep.4711"))
    wait_for(lambda: commands(later) == {})


def test_a_cell_is_interrupted_and_its_kernel_lives(served: AgentClient) -> None:
    assert served.run_code("state = 7").status is Status.OK
    running = "import time\nwhile True: time.sleep(0.01)"
    served.start_code(running)
    served.start_code("state = 8")
    time.sleep(0.3)

    later = served.new_server()
    cell = later.run_code("state")

    assert b'"text": "7"' in cell.stdout.replace(b'":"', b'": "')


def test_connections_are_closed(served: AgentClient, loopback: None) -> None:
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 9000)); c, _ = s.accept();"
        "print('connected', flush=True); print(c.recv(1), flush=True)"
    )
    fields = exec_fields(("python3", "-c", script)).text(Tag.COMMAND_ID, "job")
    served.open(Operation.EXEC, fields.uint(Tag.KEEP, 1))
    wait_for(lambda: b":2328" in served.shell("cat /proc/net/tcp").stdout)
    served.open(Operation.DIAL, Fields().uint(Tag.PORT, 9000))
    wait_for(lambda: commands(served)["job"].get_uint(Tag.SIZE) > 0)

    later = served.new_server()

    assert later.finish(attach(later)).stdout == b"connected\nb''\n"


def test_nothing_is_left_of_the_old_streams(served: AgentClient) -> None:
    before = served.descriptor_count()
    for _ in range(3):
        served.open(Operation.WATCH, Fields().text(Tag.PATH, "/workspace"))
        served.open(Operation.WRITE_FILE, Fields().text(Tag.PATH, "/workspace/half"))
        served.open(Operation.READ_FILE, Fields().text(Tag.PATH, "/dev/zero"))
        served.open(Operation.ACCEPT)
        served = served.new_server()

    wait_for(lambda: served.descriptor_count() <= before)
    assert served.shell("ls -A /workspace").stdout == b""


def test_another_token_is_no_first_word(agent: Agent, served: AgentClient) -> None:
    served.send_bytes(b"s3cret" + os.urandom(32))

    assert agent.wait_exit() == 1


def test_an_agent_without_an_identity_has_no_token(agent: Agent, client: AgentClient) -> None:
    client.send_bytes(b"secret" + os.urandom(32))

    assert agent.wait_exit() == 1
