"""Connections to ports inside the sandbox, made by the real agent."""

from __future__ import annotations

import errno
import hashlib

import pytest

from mitos.wire.link import Fields, FrameType, Operation, Status, Tag

from .client import AgentClient, Stream, exec_fields

pytestmark = pytest.mark.usefixtures("loopback")

ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 0), family=getattr(socket, sys.argv[2]))
print(server.getsockname()[1], flush=True)
while True:
    peer, _ = server.accept()
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.sendall(b"bye")
    peer.close()
"""

MUTE = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
input()
"""

ABRUPT = """
import socket, struct
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
peer.recv(1)
peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
peer.close()
input()
"""


def listen(client: AgentClient, program: str, *arguments: str) -> int:
    """Starts a server inside; its port."""
    argv = ("python3", "-c", program, *arguments)
    stream = client.open(Operation.EXEC, exec_fields(argv, stdin=True))
    client.wait_until(lambda: stream.closed or stream.stdout.endswith(b"\n"))
    return int(stream.stdout)


def dial(client: AgentClient, port: int) -> Stream:
    return client.open(Operation.DIAL, Fields().uint(Tag.PORT, port))


@pytest.mark.parametrize("where", [("127.0.0.1", "AF_INET"), ("::1", "AF_INET6")])
def test_bytes_go_both_ways_and_the_end_of_one_is_not_the_end_of_the_other(
    client: AgentClient, where: tuple[str, str]
) -> None:
    stream = dial(client, listen(client, ECHO, *where))
    client.write(stream, b"hello")
    client.wait_until(lambda: stream.stdout == b"hello")
    client.end_input(stream)
    client.finish(stream)

    assert stream.stdout == b"hellobye"
    assert stream.output_ended
    assert stream.status is Status.OK


def test_much_data_comes_back_whole(client: AgentClient) -> None:
    stream = dial(client, listen(client, ECHO, "127.0.0.1", "AF_INET"))
    data = hashlib.sha256(b"x").digest() * 100_000
    client.write(stream, data)
    client.end_input(stream)
    client.finish(stream)

    assert stream.stdout == data + b"bye"


def test_nothing_listening_is_refused(client: AgentClient) -> None:
    stream = client.finish(dial(client, 9))

    assert stream.status is Status.FAILED
    assert stream.fields.get_uint(Tag.ERRNO) == errno.ECONNREFUSED


@pytest.mark.parametrize("port", [0, 65_536, 1 << 40])
def test_a_port_must_be_one(client: AgentClient, port: int) -> None:
    assert client.finish(dial(client, port)).status is Status.INVALID


def test_a_port_that_does_not_read_holds_its_own_stream_only(client: AgentClient) -> None:
    port = listen(client, MUTE)
    stream = dial(client, port)
    with pytest.raises(TimeoutError):
        client.write(stream, bytes(64 << 20), timeout_s=0.5)

    assert client.shell("echo on").stdout == b"on\n"
    client.cancel(stream)
    assert client.finish(stream).status is Status.CANCELED


def test_a_reset_connection_is_told(client: AgentClient) -> None:
    stream = dial(client, listen(client, ABRUPT))
    client.write(stream, b"x")
    client.finish(stream)

    assert stream.status is Status.FAILED
    assert stream.fields.get_uint(Tag.ERRNO) == errno.ECONNRESET


def test_a_thousand_connections_leave_no_descriptor(client: AgentClient) -> None:
    port = listen(client, ECHO, "127.0.0.1", "AF_INET")

    before = client.descriptor_count()
    for _ in range(1000):
        stream = dial(client, port)
        client.write(stream, b"x")
        client.end_input(stream)
        client.finish(stream)
        assert stream.stdout == b"xbye"

    assert client.descriptor_count() == before


def test_the_link_can_be_frozen_in_the_middle(client: AgentClient) -> None:
    stream = dial(client, listen(client, ECHO, "127.0.0.1", "AF_INET"))
    client.write(stream, b"before ")
    client.wait_until(lambda: stream.stdout == b"before ")
    client.freeze()
    client.thaw()
    client.write(stream, b"after")
    client.end_input(stream)

    assert client.finish(stream).stdout == b"before afterbye"
    assert not any(frame.type is FrameType.FROZEN for frame in client.link_frames)
