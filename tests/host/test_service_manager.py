"""What a service manager says, and is told, over real sockets and descriptors."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitos.host import service_manager
from mitos.host.service_manager import ALIVE, READY, ServiceManager

PID = 17
DEADLINE_S = 15


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE_S)
        yield listening


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_manager_is_told(tmp_path: Path, manager: socket.socket, kind: str) -> None:
    path = str(tmp_path / "notify")
    name = path if kind == "path" else f"@{path}"
    manager.bind(path if kind == "path" else f"\0{path}")
    told = ServiceManager.take({"NOTIFY_SOCKET": name}, pid=PID)

    told.notify(READY, "STATUS=3 sandboxes")
    told.notify(ALIVE)

    assert b"READY=1\nSTATUS=3 sandboxes" == manager.recv(4096)
    assert b"WATCHDOG=1" == manager.recv(4096)


def test_nobody_is_told_without_a_manager(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager.take({}, pid=PID).notify(READY)

    assert [] == caplog.records


def test_a_manager_that_is_gone_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager(address=str(tmp_path / "gone")).notify(READY)

    assert [logging.WARNING] == [each.levelno for each in caplog.records]
    assert READY in caplog.text


def fill(sender: socket.socket, folder: Path) -> int:
    """Sends until it would wait; how often that was."""
    sender.setblocking(False)
    for sent in itertools.count():
        try:
            sender.sendto(b"full", str(folder / "notify"))
        except BlockingIOError:
            return sent
    raise AssertionError("unreachable")


def test_a_manager_that_does_not_read_holds_up_only_shortly(
    tmp_path: Path, manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    manager.bind(str(tmp_path / "notify"))
    with contextlib.ExitStack() as stack:
        # Each sender has room of its own, so it takes several to fill the queue.
        while fill(stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)), tmp_path):
            pass

        ServiceManager(address=str(tmp_path / "notify")).notify(READY)

    assert READY in caplog.text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "17"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "18"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_of_this_process_counts(
    environment: dict[str, str], expected: float | None
) -> None:
    assert expected == ServiceManager.take(environment, pid=PID).watchdog_s


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"INVOCATION_ID": "a"}, True),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, True),
    ],
)
def test_a_manager_is_known_by_its_variables(environment: dict[str, str], expected: bool) -> None:
    assert expected == ServiceManager.take(environment, pid=PID).is_present


def test_the_variables_are_for_this_process_alone() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "LISTEN_PID": "17",
        "LISTEN_FDS": "0",
        "LISTEN_FDNAMES": "",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "17",
        "PATH": "/bin",
    }

    ServiceManager.take(environment, pid=PID)

    assert {"PATH": "/bin"} == environment


def test_what_is_meant_for_another_process_stays() -> None:
    environment = {"LISTEN_PID": "18", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mitos.socket"}
    before = dict(environment)

    assert () == ServiceManager.take(environment, pid=PID).given
    assert before == environment


CHILD = """
import fcntl, json, os, sys
from mitos.host.service_manager import ServiceManager
os.environ["LISTEN_PID"] = str(os.getpid())
given = ServiceManager.take(os.environ, pid=os.getpid()).given
closed = [bool(fcntl.fcntl(each.socket, fcntl.F_GETFD) & fcntl.FD_CLOEXEC) for each in given]
print(json.dumps([[each.name, each.socket.getsockname(), it] for each, it in zip(given, closed)]))
"""


def child(**environment: str) -> list[str]:
    """A process whose descriptors 3 and 4 are those of this process that LISTENERS names."""
    script = 'exec 3<&"$1" 4<&"$2"; shift 2; exec "$@"'
    first, second = environment.pop("LISTENERS").split()
    ended = subprocess.run(
        ["bash", "-c", script, "-", first, second, sys.executable, "-c", textwrap.dedent(CHILD)],
        env={**os.environ, **environment},
        pass_fds=(int(first), int(second)),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return [ended.stdout, ended.stderr]


def test_sockets_are_taken_with_their_names() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        said, errors = child(
            LISTENERS=f"{one.fileno()} {two.fileno()}",
            LISTEN_FDS="2",
            LISTEN_FDNAMES="mitos.socket:other",
        )
        expected = [
            ["mitos.socket", list(one.getsockname()), True],
            ["other", list(two.getsockname()), True],
        ]

    assert expected == json.loads(said), errors


def test_a_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        (tmp_path / "file").open() as file,
    ):
        said, errors = child(LISTENERS=f"{one.fileno()} {file.fileno()}", LISTEN_FDS="2")

    assert "" == said
    assert "no socket" in errors


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}

        assert service_manager.is_journal(stream.fileno(), ours)
        assert not service_manager.is_journal(stream.fileno(), {"JOURNAL_STREAM": "1:1"})
        assert not service_manager.is_journal(stream.fileno(), {})
    assert not service_manager.is_journal(-1, ours)
