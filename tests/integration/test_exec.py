"""Commands with input over each transport and codec, floods, and connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from connectrpc.codec import proto_binary_codec, proto_json_codec
from protobuf import Oneof
from pyqwest import Client, HTTPTransport, HTTPVersion

import mitos
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire._generated.sandbox.v1.sandbox_connect import SandboxClient
from tests.integration.conftest import Server

pytestmark = pytest.mark.real

DEADLINE_S = 30.0
SLOW_READ_S = 5.0
GROWTH_BYTES = 24 << 20
"""What a process may grow by: buffers of the transports, and an allocator's leftovers."""

ESCAPES = "setsid sh -c '(sleep 31415 &); sleep 31415' & (sleep 31415 &) ; sleep 31415"

Answer = tuple[bytes, bytes, pb.ExecExit]


@pytest.fixture(params=["HTTP/1.1 JSON", "HTTP/1.1 protobuf", "HTTP/2 JSON", "HTTP/2 protobuf"])
def wire(request: pytest.FixtureRequest) -> str:
    """A transport and a codec."""
    return str(request.param)


@contextlib.asynccontextmanager
async def connected(server: Server, wire: str) -> AsyncIterator[SandboxClient]:
    """The official Connect client, speaking as `wire` says."""
    version = HTTPVersion.HTTP2 if "HTTP/2" in wire else HTTPVersion.HTTP1
    codec = proto_json_codec() if "JSON" in wire else proto_binary_codec()
    async with (
        HTTPTransport(http_version=version) as transport,
        SandboxClient(server.url, codec=codec, http_client=Client(transport)) as client,
    ):
        yield client


def run(server: Server, wire: str, sandbox: str, *sent: pb.ExecRequest) -> Answer:
    """A bidi call with these messages, and what it answered."""

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        for message in sent:
            yield message

    async def call() -> Answer:
        output = {"stdout": b"", "stderr": b""}
        async with asyncio.timeout(DEADLINE_S), connected(server, wire) as client:
            async for answer in client.exec(requests(), headers={"x-sandbox-id": sandbox}):
                assert answer.msg is not None
                if isinstance(answer.msg.value, pb.ExecExit):
                    return output["stdout"], output["stderr"], answer.msg.value
                output[answer.msg.field] += answer.msg.value
        raise AssertionError("no exit came")

    return asyncio.run(call())


def opened(command: str, *args: str, timeout_s: int = 20, **members: object) -> pb.ExecRequest:
    open_ = pb.ExecOpen(command=command, args=list(args), timeout_seconds=timeout_s, **members)
    return pb.ExecRequest(msg=Oneof("open", open_))


def stdin(data: bytes) -> pb.ExecRequest:
    return pb.ExecRequest(msg=Oneof("stdin", data))


def stdin_close() -> pb.ExecRequest:
    return pb.ExecRequest(msg=Oneof("stdin_close", True))


def is_running(sandbox: mitos.DirectSandbox, mark: str) -> bool:
    return mark in sandbox.exec("ps axo args | grep -v grep").stdout


def wait_until_gone(sandbox: mitos.DirectSandbox, mark: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while is_running(sandbox, mark):
        assert time.monotonic() < deadline, f"{mark} still runs"


def test_input_reaches_the_command_and_ends(
    server: Server, sandbox: mitos.DirectSandbox, wire: str
) -> None:
    data = bytes(range(256)) * 8000

    out, err, ended = run(
        server, wire, sandbox.id, opened("cat; echo done >&2; exit 3"), stdin(data), stdin_close()
    )

    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert (err, ended.exit_code) == (b"done\n", 3)


def test_arguments_environment_and_directory_count(
    server: Server, sandbox: mitos.DirectSandbox, wire: str
) -> None:
    script = 'printf "%s %s %s" "$0" "$GREETING" "$PWD"'
    env = [pb.EnvVar(key="GREETING", value="a  b")]

    request = opened("sh", "-c", script, "$HOME *", env=env, cwd="/tmp")
    out, _, ended = run(server, wire, sandbox.id, request)

    assert (out, ended.exit_code) == (b"$HOME * a  b /tmp", 0)


def test_the_deadline_kills_every_descendant(
    server: Server, sandbox: mitos.DirectSandbox, wire: str
) -> None:
    _, _, ended = run(server, wire, sandbox.id, opened(ESCAPES, timeout_s=1))

    assert ended.exit_code == 124
    assert not is_running(sandbox, "31415")


def test_a_client_that_goes_takes_its_command_along(
    server: Server, sandbox: mitos.DirectSandbox, wire: str
) -> None:
    async def leave() -> None:
        async def requests() -> AsyncIterator[pb.ExecRequest]:
            yield opened(f"echo up; {ESCAPES}")
            await asyncio.sleep(DEADLINE_S)

        async with asyncio.timeout(DEADLINE_S), connected(server, wire) as client:
            async for answer in client.exec(requests(), headers={"x-sandbox-id": sandbox.id}):
                assert answer.msg is not None
                assert answer.msg.value == b"up\n"
                return

    if "HTTP/1.1" in wire:
        leave_half_duplex(server, wire, sandbox.id)
    else:
        asyncio.run(leave())

    wait_until_gone(sandbox, "31415")


def leave_half_duplex(server: Server, wire: str, sandbox: str) -> None:
    """HTTP/1.1: the whole request first, then the connection goes in mid-answer."""
    request = opened(f"echo up; {ESCAPES}")
    is_json = "JSON" in wire
    payload = (proto_json_codec() if is_json else proto_binary_codec()).encode(request)
    with raw_call(server, "Exec", sandbox, payload, "json" if is_json else "proto") as connection:
        received = b""
        while b"dXAK" not in received and b"up\n" not in received:
            received += connection.recv(65536)


# ---- floods ----


@contextlib.contextmanager
def raw_call(
    server: Server, method: str, sandbox: str, payload: bytes, codec: str
) -> Iterator[socket.socket]:
    """A call over a socket of its own, so that the test decides how fast it is read."""
    body = struct.pack("!BI", 0, len(payload)) + payload
    head = (
        f"POST /sandbox.v1.Sandbox/{method} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/connect+{codec}\r\nX-Sandbox-Id: {sandbox}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=DEADLINE_S) as made:
        made.sendall(head.encode() + body)
        yield made


@contextlib.contextmanager
def flood(server: Server, sandbox: str, command: str) -> Iterator[socket.socket]:
    request = pb.ExecStreamRequest(command=command, timeout_seconds=850)
    payload = proto_binary_codec().encode(request)
    with raw_call(server, "ExecStream", sandbox, payload, "proto") as connection:
        yield connection


def server_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10  # type: ignore[index]


def agent_bytes(sandbox: mitos.DirectSandbox) -> int:
    return int(sandbox.exec("grep VmRSS /proc/1/status").stdout.split()[1]) << 10


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(256 << 20, id="256 MiB"),
        pytest.param(10 << 30, id="10 GiB", marks=pytest.mark.soak),
    ],
)
def test_output_passes_with_flat_memory(
    server: Server, sandbox: mitos.DirectSandbox, size: int
) -> None:
    before, agent_before = server_bytes(server), agent_bytes(sandbox)
    taken, peak, portion, samples = 0, 0, bytearray(1 << 20), 0

    with flood(server, sandbox.id, f"head -c {size} /dev/zero") as connection:
        while taken < size:
            taken += connection.recv_into(portion)
            if taken >> 24 > samples:
                samples = taken >> 24
                peak = max(peak, server_bytes(server))

    assert peak < before + GROWTH_BYTES
    assert agent_bytes(sandbox) < agent_before + (2 << 20)


def test_a_slow_reader_holds_the_command_back(server: Server, sandbox: mitos.DirectSandbox) -> None:
    before, agent_before = server_bytes(server), agent_bytes(sandbox)
    peak, agent_peak = 0, 0

    with flood(server, sandbox.id, "yes; echo never >/tmp/never") as connection:
        end = time.monotonic() + SLOW_READ_S
        while time.monotonic() < end:
            assert connection.recv(4096)
            peak = max(peak, server_bytes(server))
            agent_peak = max(agent_peak, agent_bytes(sandbox))
        [command] = [each for each in sandbox.commands() if "yes" in each.command]

    assert command.output_end < 64 << 20, "the command was not held back"
    assert peak < before + GROWTH_BYTES
    assert agent_peak < agent_before + (2 << 20)
    wait_until_gone(sandbox, "yes")


# ---- connections that break ----


class Breaker:
    """A proxy that passes each connection's first bytes and then cuts it."""

    def __init__(self, server: Server, limits: list[int]) -> None:
        address = urlsplit(server.url)
        self._target = (address.hostname, address.port)
        self._limits = limits
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Breaker:
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                limit = self._limits[min(self.connections, len(self._limits) - 1)]
                self.connections += 1
                thread = threading.Thread(target=self._pass, args=(client, limit))
                self._threads.append(thread)
                thread.start()

    def _pass(self, client: socket.socket, limit: int) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._copy, args=(client, server, 1 << 40))
            back.start()
            self._copy(server, client, limit)
            back.join(DEADLINE_S)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, limit: int) -> None:
        with contextlib.suppress(OSError):
            while limit > 0 and (data := source.recv(min(limit, 1 << 16))):
                target.sendall(data)
                limit -= len(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_a_stream_that_breaks_again_and_again_loses_nothing(
    server: Server, sandbox: mitos.DirectSandbox
) -> None:
    script = (
        "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo $i;"
        " [ $((i%9)) = 0 ] && echo e$i >&2; done; exit 9"
    )
    pieces: list[bytes] = []

    with Breaker(server, [3_000, 100_000, 50, 200_000, 777, 1 << 40]) as proxy:
        through = mitos.DirectSandbox(sandbox.id, "python", "", proxy.url, 0.0)
        result = through.exec_background(script, on_stdout=pieces.append).wait(DEADLINE_S)
        mitos.close_http_pools()

    assert result.exit_code == 9
    assert result.stdout == "".join(f"{i}\n" for i in range(1, 60_001))
    assert result.stderr == "".join(f"e{i}\n" for i in range(9, 60_001, 9))
    assert b"".join(pieces).decode() == result.stdout
    assert proxy.connections >= 5


def test_the_id_of_a_running_command_is_taken(server: Server, sandbox: mitos.DirectSandbox) -> None:
    process = sandbox.exec_background("sleep 60")
    payload = json.dumps({"command": "true"}).encode()
    body = struct.pack("!BI", 0, len(payload)) + payload
    headers = {"x-sandbox-id": sandbox.id, "x-command-id": process.id}

    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as client:
        answer = client.post(
            "/sandbox.v1.Sandbox/ExecStream",
            content=body,
            headers={**headers, "content-type": "application/connect+json"},
        )

    assert b'"already_exists"' in answer.content
    process.kill()
