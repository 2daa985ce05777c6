"""Connections that programs inside make to the agent, and that the server answers."""

from __future__ import annotations

import errno

import pytest

from mitos.wire.link import Control, Fields, Frame, FrameType, Operation, Status, Tag

from .client import AgentClient, Stream, exec_fields

pytestmark = pytest.mark.usefixtures("loopback")

SOCKET = "/run/mitos.sock"
PORT = 3128

CALLER = """
import socket, sys
if sys.argv[1] == "socket":
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/mitos.sock")
else:
    connection = socket.create_connection(("127.0.0.1", 3128))
connection.sendall(b"question")
connection.shutdown(socket.SHUT_WR)
answer = b""
while data := connection.recv(65536):
    answer += data
print(answer.decode(), flush=True)
"""


@pytest.fixture(params=["socket", "port"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def accept(client: AgentClient, where: str) -> Stream:
    fields = Fields() if where == "socket" else Fields().uint(Tag.PORT, PORT)
    return client.open(Operation.ACCEPT, fields)


def call(client: AgentClient, where: str) -> Stream:
    """Starts a program that connects, asks, and prints the answer."""
    return client.open(Operation.EXEC, exec_fields(("python3", "-c", CALLER, where)))


def wait_for_question(client: AgentClient, stream: Stream) -> None:
    client.wait_until(lambda: stream.output_ended)
    assert (stream.stderr, stream.stdout) == (b"\0", b"question")


def answer(client: AgentClient, stream: Stream, text: bytes) -> None:
    client.write(stream, text)
    client.end_input(stream)
    assert client.finish(stream).status is Status.OK


def set_fork_reply(client: AgentClient, stream: Stream, text: str) -> None:
    fields = Fields().text(Tag.MESSAGE, text)
    client.send(Frame(FrameType.CONTROL, stream.id, Control.FORK_REPLY, fields.encode()))


def fork(client: AgentClient) -> AgentClient:
    child = client.restored_child()
    assert child.identify(forked=True).status is Status.OK
    return child


def test_a_program_is_given_to_the_stream_that_waits(client: AgentClient, where: str) -> None:
    stream = accept(client, where)
    caller = call(client, where)
    wait_for_question(client, stream)
    answer(client, stream, b"answer")

    assert client.finish(caller).stdout == b"answer\n"


def test_programs_wait_until_somebody_accepts(client: AgentClient) -> None:
    callers = [call(client, "socket") for _ in range(5)]
    for number in range(5):
        stream = accept(client, "socket")
        wait_for_question(client, stream)
        answer(client, stream, b"%d" % number)

    answers = sorted(client.finish(caller).stdout for caller in callers)
    assert answers == [b"%d\n" % number for number in range(5)]


def test_every_user_may_ask(client: AgentClient) -> None:
    stream = accept(client, "socket")
    nobody = f"import os; os.setgid(65534); os.setuid(65534){CALLER}"
    caller = client.open(Operation.EXEC, exec_fields(("python3", "-c", nobody, "socket")))
    wait_for_question(client, stream)
    answer(client, stream, b"answer")

    assert client.finish(caller).stdout == b"answer\n"


def test_the_agent_listens_on_one_port_only(client: AgentClient) -> None:
    accept(client, "port")
    other = client.finish(client.open(Operation.ACCEPT, Fields().uint(Tag.PORT, PORT + 1)))

    assert other.status is Status.FAILED
    assert other.fields.get_uint(Tag.ERRNO) == errno.EBUSY


def test_a_canceled_stream_leaves_the_program_to_the_next(client: AgentClient, where: str) -> None:
    gone = accept(client, where)
    client.cancel(gone)
    assert client.finish(gone).status is Status.CANCELED
    caller = call(client, where)
    stream = accept(client, where)
    wait_for_question(client, stream)
    answer(client, stream, b"answer")

    assert client.finish(caller).stdout == b"answer\n"


def call_in_background(client: AgentClient) -> None:
    """Starts a caller that outlives a fork; its answer goes to a file."""
    client.write_file("/tmp/caller.py", CALLER.encode())
    client.shell("python3 /tmp/caller.py socket >/tmp/answer 2>&1 </dev/null &")


def background_answer(client: AgentClient) -> bytes:
    return client.shell("until [ -s /tmp/answer ]; do sleep 0.02; done; cat /tmp/answer").stdout


def test_a_childs_program_is_told_the_reply(client: AgentClient) -> None:
    stream = accept(client, "socket")
    call_in_background(client)
    wait_for_question(client, stream)
    set_fork_reply(client, stream, "first thought")
    set_fork_reply(client, stream, "you are a child")
    child = fork(client)

    assert background_answer(child) == b"you are a child\n"


def test_without_a_reply_a_childs_connection_ends(client: AgentClient) -> None:
    stream = accept(client, "socket")
    call_in_background(client)
    wait_for_question(client, stream)
    set_fork_reply(client, stream, "x" * 4097)
    child = fork(client)

    assert background_answer(child) == b"\n"


def test_who_waits_at_a_fork_is_served_by_the_child(client: AgentClient) -> None:
    call_in_background(client)
    client.shell("until [ $(grep -c mitos.sock /proc/net/unix) = 2 ]; do sleep 0.02; done")
    child = fork(client)
    stream = accept(child, "socket")
    wait_for_question(child, stream)
    answer(child, stream, b"from the child")

    assert background_answer(child) == b"from the child\n"


def test_a_thousand_connections_leave_no_descriptor(client: AgentClient) -> None:
    rounds = """
import socket
for _ in range(1000):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/mitos.sock")
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b"y"
"""

    before = client.descriptor_count()
    caller = client.open(Operation.EXEC, exec_fields(("python3", "-c", rounds)))
    for _ in range(1000):
        stream = accept(client, "socket")
        client.wait_until(lambda stream=stream: stream.output_ended)  # type: ignore[misc]
        answer(client, stream, b"y")

    assert client.finish(caller).fields.get_int(Tag.EXIT_CODE) == 0
    assert client.descriptor_count() == before
