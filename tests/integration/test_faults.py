"""What breaks in mid-call: the caller is told within two seconds, and nothing is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mitos
from tests.integration.conftest import Server, serve
from tests.integration.leftovers import Leftovers
from tests.machine import borrow_cache

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

TOLD_WITHIN_S = 2.0
"""How long a caller may be left in the dark; the point of this file, not a figure of speed."""

SETTLE_S = 15.0
SERVICE = "/sandbox.v1.Sandbox"
WORKERS = 6


def envelope(body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    return b"\0" + len(data).to_bytes(4, "big") + data


class Call:
    """A streaming call on a connection of its own, read piece by piece and left at will."""

    def __init__(
        self, server: Server, sandbox: str, method: str, *requests: dict[str, object]
    ) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), SETTLE_S)
        body = b"".join(map(envelope, requests))
        # The body of a call that never ends its input is announced larger than it is.
        announced = len(body) + (1 << 20 if method == "WriteFile" else 0)
        self.socket.sendall(
            f"POST {SERVICE}/{method} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/connect+json\r\nX-Sandbox-Id: {sandbox}\r\n"
            f"Content-Length: {announced}\r\n\r\n".encode()
            + body
        )
        self.received = b""

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def wait_for(self, mark: bytes) -> None:
        """Reads until something has come."""
        while mark not in self.received:
            data = self.socket.recv(1 << 16)
            assert data, self.received[-500:]
            self.received = self.received[-1000:] + data

    def rest(self, within_s: float) -> bytes:
        """The last of what comes until the answer ends, which it must in time."""
        deadline = time.monotonic() + within_s
        while b"\r\n0\r\n\r\n" not in self.received[-400:]:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self.received = self.received[-1000:] + data
        return self.received


def exec_call(server: Server, sandbox: str, command: str) -> Call:
    return Call(server, sandbox, "ExecStream", {"command": command, "timeoutSeconds": 60})


def told(call: Callable[[], object]) -> mitos.AgentRunError:
    """The typed error of a call, which must come in time."""
    started = time.monotonic()
    with pytest.raises(mitos.AgentRunError) as caught:
        call()
    assert time.monotonic() - started < TOLD_WITHIN_S
    return caught.value


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def when_running(server: Server, sandbox: mitos.DirectSandbox, act: Callable[[], object]) -> None:
    """Acts once `sleep 999` runs in the sandbox, from another connection."""
    until(lambda: "sleep" in sandbox.exec("ps axo comm").stdout, "the command runs")
    act()


def kernel_process(server: Server, sandbox: mitos.DirectSandbox) -> int:
    """The host's process that is the sandbox's kernel: the one that holds a large file."""
    sandbox.exec("head -c 100000000 /dev/zero > /tmp/large")
    state = (server.home / "run").resolve()
    group = f"mitos-{hashlib.sha256(bytes(state)).hexdigest()[:12]}"
    (parent,) = [
        path
        for path in Path("/sys/fs/cgroup").glob(f"**/{group}")
        if any(path.glob("*/memory.usage_in_bytes")) or any(path.glob("*/memory.current"))
    ]
    usage = {
        int(file.read_text()): file.parent
        for name in ("memory.usage_in_bytes", "memory.current")
        for file in parent.glob(f"*/{name}")
    }
    for pid in (usage[max(usage)] / "cgroup.procs").read_text().split():
        if b"\0boot\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError("no process of that sandbox")


def terminated(server: Server, sandbox: mitos.DirectSandbox) -> None:
    """Waits until the server has given a dead sandbox up."""
    client = mitos.SandboxServer(server.url)
    until(
        lambda: sandbox.id not in [row["id"] for row in client.list_sandboxes()],
        "the dead sandbox is given up",
    )


# One fault each


def test_the_agent_is_killed_in_mid_stream(server: Server) -> None:
    sandbox = server.create()

    error = told(lambda: sandbox.exec("echo begun; kill -9 1; sleep 999"))

    assert sandbox.id in str(error)
    assert error.remediation
    terminated(server, sandbox)
    assert isinstance(told(lambda: sandbox.exec("true")), mitos.NotFoundError)


def test_the_agents_output_is_filled_with_garbage(server: Server) -> None:
    sandbox = server.create()

    error = told(lambda: sandbox.exec("echo garbage of many bytes > /proc/1/fd/1; sleep 999"))

    assert sandbox.id in str(error)
    terminated(server, sandbox)


def test_the_code_kernel_is_killed_in_mid_cell(sandbox: mitos.DirectSandbox) -> None:
    sandbox.run_code("value = 1")
    started = time.monotonic()
    died = sandbox.run_code("import os; print('begun', flush=True); os.kill(os.getpid(), 9)")

    assert time.monotonic() - started < TOLD_WITHIN_S
    assert (died.error.name if died.error else None) == "KernelDied"
    assert ["begun\n"] == died.logs["stdout"]
    again = sandbox.run_code("'value' in globals()")
    assert "False" == again.text


def test_the_client_is_gone_in_mid_exec(server: Server, sandbox: mitos.DirectSandbox) -> None:
    with exec_call(server, sandbox.id, "echo begun; setsid sleep 999 & sleep 999") as call:
        call.wait_for(b"stdout")

    until(lambda: "sleep" not in sandbox.exec("ps axo comm").stdout, "its processes are gone")


def test_the_sandbox_is_killed_in_mid_read(server: Server) -> None:
    sandbox = server.create()
    pid = kernel_process(server, sandbox)
    with Call(server, sandbox.id, "ReadFile", {"path": "/dev/zero"}) as call:
        call.wait_for(b"data")
        os.kill(pid, signal.SIGKILL)
        end = call.rest(TOLD_WITHIN_S)

    assert b'"error"' in end
    assert b'"not_found"' in end
    terminated(server, sandbox)


def test_the_sandbox_is_killed_in_mid_exec_and_mid_cell(server: Server) -> None:
    sandbox = server.create()
    sandbox.run_code("1")
    pid = kernel_process(server, sandbox)
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(sandbox.exec, "sleep 999"),
            pool.submit(sandbox.run_code, "import time; time.sleep(999)"),
        ]
        when_running(server, sandbox, lambda: os.kill(pid, signal.SIGKILL))
        errors = [told(lambda call=call: call.result(SETTLE_S)) for call in calls]  # type: ignore[misc]

    assert [sandbox.id in str(error) for error in errors] == [True, True]
    terminated(server, sandbox)


def test_the_sandbox_is_terminated_in_mid_exec(server: Server) -> None:
    sandbox = server.create()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sandbox.exec, "sleep 999")
        when_running(server, sandbox, sandbox.terminate)

        assert isinstance(told(lambda: call.result(SETTLE_S)), mitos.NotFoundError)


def test_the_server_is_killed_and_its_successor_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    borrow_cache(home)
    leftovers = Leftovers(home)
    log = tmp_path / "log"
    with serve(home, log, "--engine", "gvisor", "--prepare", "python") as server:
        sandbox = server.create()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(sandbox.exec, "sleep 999")
            when_running(server, sandbox, server.process.kill)
            told(lambda: call.result(SETTLE_S))
    with serve(home, log, "--engine", "gvisor") as server:
        (again,) = mitos.SandboxServer(server.url).sandboxes()
        assert again.id == sandbox.id
        assert again.exec("pgrep -x sleep; echo ok").stdout == "ok\n"
    assert leftovers.found() == []
    shutil.rmtree(home / "snapshots", ignore_errors=True)


# All of them, again and again


def descriptors(pid: int) -> Counter[str]:
    """What a process holds open, by kind."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            kinds[target.split(":", maxsplit=1)[0] if ":" in target else Path(target).name] += 1
    return kinds


def runtime_processes(server: Server) -> int:
    """Processes of sandboxes on the host."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                count += str(server.home).encode() in command and b"--bundle=" in command
    return count


class Faults:
    """The kinds of fault, each one round."""

    def __init__(self, server: Server, sandbox: mitos.DirectSandbox) -> None:
        self._server = server
        self._sandbox = sandbox
        self._cells = threading.Lock()

    def leave_exec(self) -> None:
        """The client goes away in mid-command."""
        with exec_call(self._server, self._sandbox.id, "echo x; setsid sleep 999 & wait") as call:
            call.wait_for(b"stdout")

    def leave_flood(self) -> None:
        """The client goes away while more output comes than it reads."""
        with exec_call(self._server, self._sandbox.id, "yes") as call:
            call.wait_for(b"stdout")

    def leave_read(self) -> None:
        """The client goes away in mid-file."""
        with Call(self._server, self._sandbox.id, "ReadFile", {"path": "/dev/zero"}) as call:
            call.wait_for(b"data")

    def leave_write(self) -> None:
        """The client goes away before the file is whole: there is no such file."""
        path = f"/tmp/half-{random.random()}"
        opened: dict[str, object] = {"open": {"path": path}}
        with Call(self._server, self._sandbox.id, "WriteFile", opened, {"data": "eHh4"}):
            pass
        assert not self._sandbox.files.exists(path)

    def leave_terminal(self) -> None:
        """The client goes away from a terminal."""
        seen = threading.Event()
        terminal = self._sandbox.pty(lambda _: seen.set())
        assert seen.wait(SETTLE_S)
        terminal.kill()

    def fail_to_start(self) -> None:
        """A command that cannot be started."""
        assert self._sandbox.exec("cd /nowhere && true").exit_code != 0

    def kill_command(self) -> None:
        """A command that kills itself in mid-output."""
        assert -1 == self._sandbox.exec("echo x; kill -9 $$").exit_code

    def kill_kernel(self) -> None:
        """The code kernel dies in mid-cell."""
        with self._cells:
            died = self._sandbox.run_code("import os; os.kill(os.getpid(), 9)")
        assert (died.error.name if died.error else None) == "KernelDied"

    def kill_agent(self) -> None:
        """The agent dies in mid-command."""
        sandbox = self._server.create()
        with pytest.raises(mitos.AgentRunError):
            sandbox.exec("kill -9 1; sleep 999")

    def rounds(self, count: int) -> Iterator[Callable[[], None]]:
        """So many rounds in an order that differs from run to run."""
        of_fifty = {
            self.leave_exec: 11,
            self.leave_flood: 4,
            self.leave_read: 8,
            self.leave_write: 5,
            self.leave_terminal: 6,
            self.fail_to_start: 6,
            self.kill_command: 7,
            self.kill_kernel: 2,
            self.kill_agent: 1,
        }
        assert sum(of_fifty.values()) == 50
        assert count % 50 == 0
        every = [fault for fault, share in of_fifty.items() for _ in range(share * count // 50)]
        random.shuffle(every)
        return iter(every)


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.crash)])
def test_many_faults_leave_nothing_behind(
    server: Server, sandbox: mitos.DirectSandbox, rounds: int
) -> None:
    """Counted: descriptors of the server, its processes, and the agent's in the sandbox."""
    faults = Faults(server, sandbox)
    agent = "ls /proc/1/fd | wc -l; ps axo comm | grep -c ."

    def state() -> tuple[int, int, str]:
        return (
            descriptors(server.process.pid)["pipe"] + descriptors(server.process.pid)["anon_inode"],
            runtime_processes(server),
            sandbox.exec(agent).stdout,
        )

    for fault in (faults.kill_kernel, faults.kill_agent, faults.leave_exec):
        fault()  # what is made once is made now
    sandbox.run_code("1")
    before, sockets = settled(state), descriptors(server.process.pid)["socket"]
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(fault) for fault in faults.rounds(rounds)]:
            done.result(SETTLE_S * 10)
    sandbox.run_code("1")

    assert before == settled(state)
    # The SDK keeps a connection for each thread that ran; no more may be left.
    assert descriptors(server.process.pid)["socket"] <= sockets + WORKERS


def settled(read: Callable[[], tuple[int, int, str]]) -> tuple[int, int, str]:
    """A reading that stays the same for a while."""
    deadline = time.monotonic() + SETTLE_S * 2
    last, since = read(), time.monotonic()
    while time.monotonic() - since < 2.0:
        assert time.monotonic() < deadline, f"it does not settle: {last}"
        time.sleep(0.1)
        if (now := read()) != last:
            last, since = now, time.monotonic()
    return last
