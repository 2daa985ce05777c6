"""What an upgrade under load is made of: a server that is restarted, and clients that do not stop.

Everything a client gets back is checked. What may fail, because it cannot be sent twice, is counted
by its error; all else that fails is a finding.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

import mitos
from mitos.errors import AgentRunError
from tests.integration.conftest import STOP_DEADLINE_S, wait_for_port

__all__ = ["Client", "Restarted", "Tally", "clients_at_work"]

TEMPLATE = "base"
FILE = "/workspace/file"
FILE_BYTES = 200_000
ROUND_DEADLINE_S = 300.0
"""How long a round of a client may take, outage included. One takes a second or two."""

_T = TypeVar("_T")


class Restarted:
    """`mitos serve` on one home and one port, started again and again.

    Args:
        home: of all of them.
        log: of the one that runs; each has a number behind it.
    """

    def __init__(self, home: Path, log: Path) -> None:
        self._home = home
        self._log = log
        self._count = 0
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where all of them are."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the next one, and waits until it listens."""
        self._count += 1
        log = self._log.with_suffix(f".{self._count}.log")
        port_file = log.with_suffix(".port")
        argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--engine", "gvisor"]
        argv += ["--addr", f"127.0.0.1:{self._port}", "--port-file", str(port_file)]
        argv += ["--home", str(self._home), "--on-stop", "leave", "--prepare", TEMPLATE]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(argv, stderr=sink, env=dict(os.environ))
        self._port = wait_for_port(self._process, port_file, log)

    def stop(self, how: signal.Signals) -> None:
        """Ends the one that runs."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(STOP_DEADLINE_S)

    def close(self) -> None:
        """Ends all that is left, however far a test got."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)


@dataclass
class Tally:
    """What all clients met.

    Attributes:
        findings: what must not be.
        errors: of calls that cannot be sent twice: call, class, code and status.
        done: calls that succeeded.
    """

    findings: list[str] = field(default_factory=list)
    errors: Counter[tuple[str, str, str, int | None]] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def expect(self, what: str, expected: object, actual: object) -> None:
        """Notes a result that is wrong."""
        if expected != actual:
            self.findings.append(f"{what}: {str(expected)[:80]!r} became {str(actual)[:80]!r}")

    def must(self, what: str, call: Callable[[], _T]) -> _T | None:
        """A call that the SDK may send again: any failure is a finding."""
        try:
            found = call()
        except Exception as exc:  # noqa: BLE001  whatever it is, the test tells
            self.findings.append(f"{what} failed with {type(exc).__name__}: {exc}")
            return None
        self.done[what] += 1
        return found

    def may(self, what: str, call: Callable[[], _T]) -> tuple[bool, _T | None]:
        """A call that may be half done when the server goes: it may fail, with a typed error."""
        try:
            found = call()
        except AgentRunError as exc:
            if not exc.retryable or isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout)):
                self.findings.append(f"{what} failed with {type(exc).__name__}: {exc}")
            self.errors[what, type(exc).__name__, exc.code, exc.status] += 1
            return False, None
        except Exception as exc:  # noqa: BLE001
            self.findings.append(f"{what} failed with {type(exc).__name__}: {exc}")
            return False, None
        self.done[what] += 1
        return True, found


class Client:
    """One that uses its own sandbox, round after round.

    Args:
        url: of the server.
        name: its sandbox's id.
        tally: of all of them.
    """

    def __init__(self, url: str, name: str, tally: Tally) -> None:
        self.name = name
        self.rounds = 0
        self._tally = tally
        self._random = random.Random(name)
        self._sandbox = mitos.create(TEMPLATE, base_url=url, api_key="", id=name)
        self._sandbox.exec("echo $$ > /tmp/first")
        self._contents = {"first"}
        self._sandbox.files.write(FILE, "first")

    def work(self, stop: threading.Event) -> None:
        """Rounds until told to stop."""
        while not stop.is_set():
            self._exec()
            self._background()
            self._files()
            self._fork()
            self.rounds += 1

    def _exec(self) -> None:
        number = self._random.randrange(10**9)
        command = f"echo {number}; sleep 0.05; echo {number} >&2; exit 3"
        ok, found = self._tally.may("exec", lambda: self._sandbox.exec(command, timeout=120))
        if ok and found is not None:
            expected = (3, f"{number}\n", f"{number}\n")
            self._tally.expect("exec", expected, (found.exit_code, found.stdout, found.stderr))

    def _background(self) -> None:
        number = self._random.randrange(10**9)
        command = f"for i in 1 2 3 4 5; do echo {number}-$i; sleep 0.1; done; exit 4"
        job = self._tally.must(
            "exec_background", lambda: self._sandbox.exec_background(command, timeout=600)
        )
        found = job and self._tally.must("wait", lambda: job.wait(timeout=ROUND_DEADLINE_S))
        if job and found:
            lines = "".join(f"{number}-{i}\n" for i in range(1, 6))
            actual = (found.exit_code, found.stdout, job.lost_bytes)
            self._tally.expect("exec_background", (4, lines, 0), actual)

    def _files(self) -> None:
        content = f"{self._random.randrange(10**9)} " * (FILE_BYTES // 10)
        ok, _ = self._tally.may("write", lambda: self._sandbox.files.write(FILE, content))
        # Whether one that failed has happened is not known; that it has by half must not be.
        self._contents = {content} if ok else self._contents | {content}
        found = self._tally.must("read", lambda: self._sandbox.files.read(FILE))
        if found is not None and found not in self._contents:
            self._tally.expect("read", sorted(self._contents), found)
        names = self._tally.must("list", lambda: self._sandbox.files.list("/workspace"))
        if names is not None:
            self._tally.expect("list", ["file"], [each.name for each in names])

    def _fork(self) -> None:
        forked = self._tally.must("fork", self._sandbox.fork)
        for child in forked or ():
            found = self._tally.must("read of a child", lambda child=child: child.files.read(FILE))
            if found is not None and found not in self._contents:
                self._tally.expect("read of a child", sorted(self._contents), found)
            self._tally.must("terminate", child.terminate)


@contextlib.contextmanager
def clients_at_work(url: str, count: int, tally: Tally) -> Iterator[Callable[[], None]]:
    """Runs so many clients; yields what waits until each has done another round.

    Raises:
        AssertionError: one does not get on.
    """
    clients = [Client(url, f"client-{number}", tally) for number in range(count)]
    stop = threading.Event()
    threads = [threading.Thread(target=each.work, args=(stop,), daemon=True) for each in clients]
    for thread in threads:
        thread.start()

    def wait_for_round() -> None:
        wanted = {each.name: each.rounds + 1 for each in clients}
        deadline = time.monotonic() + ROUND_DEADLINE_S
        while behind := [each.name for each in clients if each.rounds < wanted[each.name]]:
            assert time.monotonic() < deadline, f"{behind} do not get on; {tally}"
            time.sleep(0.05)

    try:
        yield wait_for_round
    finally:
        stop.set()
        for thread in threads:
            thread.join(ROUND_DEADLINE_S)
        mitos.close_http_pools()
    assert [] == [thread.name for thread in threads if thread.is_alive()]
