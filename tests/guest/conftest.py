"""The real agent as an ordinary process: PID 1 of its own namespaces, in a small root in memory.

Nothing of the host can be changed from inside: its folders are read-only, the hostname is the
namespace's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitos.images import guest
from mitos.wire.link import Tag

from .client import DEADLINE_S, AgentClient, FrameType

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent and the client that talks to it."""

    process: subprocess.Popen[bytes]
    client: AgentClient

    @property
    def pid(self) -> int:
        """The agent's id on the host: the child of `unshare`."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def wait_exit(self) -> int:
        return self.process.wait(DEADLINE_S)


@pytest.fixture(scope="session")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subprocess.run([ROOT / "scripts" / "build-agent"], check=True, timeout=300)
    return guest.materialize(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def agent(guest_files: Path, tmp_path: Path) -> Iterator[Agent]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the agent runs as PID 1 in namespaces of its own")
    root = tmp_path / "root"
    root.mkdir()
    python = Path(sys.base_prefix)
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child"),
            *(HERE / "enter-tree", root, guest_files, python),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            "PATH": f"{python}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
        },
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    client = AgentClient(process.stdin.fileno(), process.stdout.fileno())
    try:
        yield Agent(process, client)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def client(agent: Agent) -> AgentClient:
    agent.client.link_frame(FrameType.HELLO)
    return agent.client


@pytest.fixture
def loopback(client: AgentClient) -> None:
    """A network namespace begins with its loopback down."""
    up = client.exec("python3", "-c", LOOPBACK_UP)
    assert up.fields.get_int(Tag.EXIT_CODE) == 0, up.stderr
