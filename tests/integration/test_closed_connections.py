"""Connections that programs closed are not kept by the sandbox's kernel, which counts as memory."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Server
from tests.machine import running_release

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

COUNT = 50
PROGRAM = f"""
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
for _ in range({COUNT}):
    client = socket.create_connection(listener.getsockname())
    served, _ = listener.accept()
    served.close()
    assert client.recv(1) == b""
    client.close()
    with socket.create_connection(listener.getsockname()) as again:
        listener.accept()[0].sendall(b"x" * 100_000)
        assert len(again.recv(100_000, socket.MSG_WAITALL)) == 100_000
time.sleep(0.1)
print(sum(line.split()[3] == "06" for line in open("/proc/net/tcp")))
"""


def test_none_is_kept_in_a_sandbox_and_its_fork(server: Server) -> None:
    """Debian's program keeps them for a minute, as Linux does; 06 is TIME_WAIT."""
    with server.create() as parent:
        kept = [parent.exec(["python3", "-c", PROGRAM]).stdout.strip()]
        (child,) = parent.fork(1)
        with child:
            kept.append(child.exec(["python3", "-c", PROGRAM]).stdout.strip())

    if running_release().is_own:
        assert kept == ["0", "0"]
    else:
        assert int(kept[0]) > 0
