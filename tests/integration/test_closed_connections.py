"""Connections that programs closed are not kept by the sandbox's kernel, which counts as memory."""

from __future__ import annotations

import errno
import os

import pytest

from tests.integration.conftest import Server
from tests.machine import running_release

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

COUNT = 50
PROGRAM = f"""
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
for _ in range({COUNT}):
    client = socket.create_connection(address)
    served, _ = listener.accept()
    served.close()
    assert client.recv(1) == b""
    client.close()
    with socket.create_connection(address) as again:
        listener.accept()[0].sendall(b"x" * 100_000)
        assert len(again.recv(100_000, socket.MSG_WAITALL)) == 100_000
listener.close()
time.sleep(0.1)
try:
    socket.socket().bind(address)
    print("free")
except OSError as exc:
    print(exc.strerror)
"""
"""What the kernel keeps of a connection that was closed has its address, but is in no list."""


def test_none_is_kept_in_a_sandbox_and_its_fork(server: Server) -> None:
    """Debian's program keeps them for a minute, as Linux does."""
    with server.create() as parent:
        kept = [parent.exec(["python3", "-c", PROGRAM]).stdout.strip()]
        (child,) = parent.fork(1)
        with child:
            kept.append(child.exec(["python3", "-c", PROGRAM]).stdout.strip())

    expected = "free" if running_release().is_own else os.strerror(errno.EADDRINUSE)
    assert kept == [expected, expected]
