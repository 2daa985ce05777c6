"""Many clients at work while something fails every two seconds.

Each client has a sandbox and does work that checks itself. Faults hit sandboxes that are marked
before: such a one may end, or refuse in a typed form. All else must be right: no wrong output, no
call without an end, no sandbox that ends without a fault, and nothing left at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import random
import secrets
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest
from websocket import WebSocketException

import mitos
from mitos import DirectSandbox
from mitos.direct import close_http_pools
from mitos.node.principal import LOCAL
from mitos.wire.errors import ApiError
from tests.server.at_rest import settled, wait_for_rest
from tests.server.health import asking
from tests.server.serving import Server, raw, serving

CALL_S = 100.0
"""No call may take longer; the usual is far below a second."""

FAULT_EVERY_S = 2.0
FAULTS_AT_ONCE = 16
FULL = {"rate_limited", "quota_exceeded", "too_many_streams"}
"""What anybody may be told at any time."""

ASK = "curl -s 127.0.0.1:8000/ >/dev/null"
SERVE = (
    f"{ASK} || {{ setsid python3 -m http.server 8000 --directory /workspace --bind 127.0.0.1"
    f" >/dev/null 2>&1 & until {ASK}; do sleep 0.05; done; }}"
)
"""Starts a web server, unless it runs already."""


@dataclass
class Field:
    """Where clients and faults meet."""

    server: Server
    stop: threading.Event = field(default_factory=threading.Event)
    hit: set[str] = field(default_factory=set)
    living: dict[str, DirectSandbox] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    wrong: queue.Queue[str] = field(default_factory=queue.Queue)

    def client(self, number: int, seed: str) -> None:
        """One client's life."""
        dice = random.Random(f"{seed}-{number}")
        while not self.stop.is_set():
            sandbox_id = f"load-{number}-{secrets.token_hex(3)}"
            try:
                self._use(sandbox_id, dice)
            except mitos.AgentRunError as exc:
                if sandbox_id not in self.hit and exc.code not in FULL:
                    self.wrong.put(f"{sandbox_id}: {exc!r}")
            except Exception as exc:  # noqa: BLE001  whatever it was, it is the finding
                self.wrong.put(f"{sandbox_id}: {exc!r}")
            finally:
                self.living.pop(sandbox_id, None)

    def _use(self, sandbox_id: str, dice: random.Random) -> None:
        sb = mitos.SandboxServer(self.server.url).fork("python", id=sandbox_id)
        self.living[sandbox_id] = sb
        try:
            for _ in range(dice.randint(3, 12)):
                if self.stop.is_set():
                    return
                name, work = dice.choice(list(WORKS.items()))
                started = time.monotonic()
                try:
                    work(sb)
                    self.done[name] += 1
                finally:
                    took = time.monotonic() - started
                    if took > CALL_S:
                        self.wrong.put(f"{sandbox_id}: {name} took {took:.0f} s")
        finally:
            with contextlib.suppress(mitos.AgentRunError):
                sb.terminate()


def run(sb: DirectSandbox) -> None:
    nonce = secrets.token_hex(8)
    assert f"{nonce}\n" == sb.exec(f"echo {nonce}").stdout


def compute(sb: DirectSandbox) -> None:
    number = secrets.randbelow(1000)
    assert str(number * number) == sb.run_code(f"{number} * {number}").text


def keep_files(sb: DirectSandbox) -> None:
    data = secrets.token_bytes(300_000)
    sb.files.write("/workspace/data", data)
    assert data == sb.files.read_bytes("/workspace/data")
    said = sb.exec("sha256sum < /workspace/data").stdout
    assert hashlib.sha256(data).hexdigest() in said


def fork(sb: DirectSandbox) -> None:
    nonce = secrets.token_hex(8)
    sb.files.write("/workspace/of-the-parent", nonce)
    (child,) = sb.fork(1)
    try:
        assert nonce == child.files.read("/workspace/of-the-parent")
        child.files.write("/workspace/of-the-parent", "changed")
        assert nonce == sb.files.read("/workspace/of-the-parent")
    finally:
        child.terminate()


def serve(sb: DirectSandbox) -> None:
    """A program of the sandbox, asked through the expose route."""
    nonce = secrets.token_hex(8)
    sb.files.write("/workspace/page", nonce)
    sb.exec(SERVE, timeout=30)
    answer = httpx.get(f"{sb.endpoint}/v1/sandboxes/{sb.id}/expose/8000/page", timeout=CALL_S)
    if nonce != answer.text:
        sb.exec("true")  # says why, when the sandbox has failed
        raise AssertionError(f"the port said {answer.status_code} {answer.text!r}")


def keep_command(sb: DirectSandbox) -> None:
    nonce = secrets.token_hex(8)
    job = sb.exec_background(f"sleep 0.3; echo {nonce}")
    assert f"{nonce}\n" == sb.command(job.id).wait(60).stdout


def terminal(sb: DirectSandbox) -> None:
    nonce, said, heard = secrets.token_hex(8), bytearray(), threading.Event()

    def take(data: bytes) -> None:
        said.extend(data)
        if f"<{nonce}>".encode() in said:
            heard.set()

    session = sb.pty(take)
    try:
        # Whatever becomes of a terminal, its client is only told that it is not connected.
        with contextlib.suppress(OSError, WebSocketException):
            session.send_input(f"echo '<'{nonce}'>'\n".encode())
            heard.wait(60)
        if not heard.is_set():
            sb.exec("true")  # says why, when the sandbox has failed
            raise AssertionError(f"the terminal said {bytes(said)!r}")
    finally:
        session.kill()


WORKS: dict[str, Callable[[DirectSandbox], None]] = {
    "run": run,
    "compute": compute,
    "files": keep_files,
    "fork": fork,
    "serve": serve,
    "command": keep_command,
    "terminal": terminal,
}


class Faults:
    """What goes wrong, one after the other."""

    def __init__(self, ground: Field, seed: str) -> None:
        self._field = ground
        self._server = ground.server
        self._dice = random.Random(f"{seed}-faults")
        self.made: Counter[str] = Counter()

    def run(self) -> None:
        """Begins one every two seconds; some take longer."""
        kinds = [
            *(self.kill, self.stop_for_a_while, self.terminate, self.pause, self.hibernate),
            *(self.fill_memory, self.cut, self.loris, self.garbage),
        ]
        with ThreadPoolExecutor(FAULTS_AT_ONCE) as pool:
            while not self._field.stop.wait(FAULT_EVERY_S):
                pool.submit(self._make, self._dice.choice(kinds))

    def _make(self, kind: Callable[[], None]) -> None:
        self.made[kind.__name__] += 1
        try:
            kind()
        except (mitos.AgentRunError, ApiError, OSError, LookupError):
            pass  # what it was about to hit may have ended by itself
        except Exception as exc:  # noqa: BLE001  whatever it was, it is the finding
            self._field.wrong.put(f"{kind.__name__}: {exc!r}")

    def _victim(self) -> DirectSandbox:
        victim = self._dice.choice(sorted(self._field.living))
        self._field.hit.add(victim)
        return self._field.living[victim]

    def _signal(self, number: signal.Signals) -> int:
        found = self._server.node._parts.registry.find(LOCAL.owner, self._victim().id)
        if found.running is None:
            raise LookupError("it has no machine now")
        pid = int(found.running.machine.sandbox._kernel.pid)  # type: ignore[attr-defined]
        os.kill(pid, number)
        return pid

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop_for_a_while(self) -> None:
        pid = self._signal(signal.SIGSTOP)
        time.sleep(3)
        os.kill(pid, signal.SIGCONT)

    def terminate(self) -> None:
        self._victim().terminate()

    def pause(self) -> None:
        victim = self._victim()
        victim.pause()
        time.sleep(1)
        victim.resume()

    def hibernate(self) -> None:
        self._victim().hibernate()

    def fill_memory(self) -> None:
        self._victim().exec("head -c 2G /dev/zero > /tmp/full", timeout=20)

    def cut(self) -> None:
        """A client that goes away in the middle of its request."""
        head = b"POST /v1/fork HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"
        with raw(self._server, head) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def loris(self) -> None:
        with contextlib.ExitStack() as open_:
            for _ in range(50):
                open_.enter_context(raw(self._server, b"GET /v1/he"))
            time.sleep(0.5)

    def garbage(self) -> None:
        with raw(self._server, secrets.token_bytes(2000)):
            pass


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("own")
    with serving(folder, warm_per_template=0, max_blanks_per_spec=0) as running:
        yield running


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        pytest.param(6, 12, id="short", marks=pytest.mark.timeout(300)),
        pytest.param(50, 600, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(1500)]),
    ],
)
def test_what_no_fault_hit_is_right_and_nothing_is_left(
    own: Server, clients: int, seconds: int
) -> None:
    seed = secrets.token_hex(4)
    before = settled(own)
    ground = Field(own)
    faults = Faults(ground, seed)
    threads = [
        threading.Thread(target=ground.client, args=(number, seed)) for number in range(clients)
    ]
    threads.append(threading.Thread(target=faults.run))
    with asking(own) as health:
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        ground.stop.set()
        for thread in threads:
            thread.join(2 * CALL_S)
    print(f"seed {seed}: {dict(ground.done)}, faults {dict(faults.made)}")

    assert not any(thread.is_alive() for thread in threads), seed
    assert [] == list(ground.wrong.queue), "\n".join([seed, *ground.wrong.queue])
    assert set(ground.done) == set(WORKS) or seconds < 60, seed
    assert len(ground.done) > len(WORKS) // 2, seed
    assert sum(faults.made.values()) >= seconds / FAULT_EVERY_S / 2, seed
    assert [] == health.failures
    own.end_sandboxes()
    close_http_pools()
    wait_for_rest(own, before)
