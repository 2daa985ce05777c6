"""How long a server takes to say that it is well, while others crowd it.

    bench/overload.py [--record FILE]

Starts a server of its own. Another process asks for its health over a new connection every 20 ms:
before, while 200 creates come at once, during a fork into 64, and while 100 terminals flood. It
stands for a client on another machine, so it does not wait for a CPU of this one.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import websocket

from mitos.host import priority

sys.path.insert(0, str(Path(__file__).parent))

from server import machine, own_server

PAUSE_S = 0.02
CREATES = 200
CHILDREN = 64
TERMINALS = 100
SANDBOXES = 8
FLOOD_S = 10


def ask(port: int, pipe: Connection) -> None:
    """Asks until told to stop; sends the times back."""
    times = []
    os.setsid()
    with priority.first():
        while not pipe.poll(PAUSE_S):
            started = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/v1/health")
            if connection.getresponse().status != 200:
                raise SystemExit("the server is not well")
            connection.close()
            times.append(time.perf_counter() - started)
    pipe.send(times)


def measured(url: str, work: Callable[[], object]) -> list[float]:
    """Times of the health's answers while the work is done, in seconds."""
    ours, theirs = multiprocessing.Pipe()
    asker = multiprocessing.Process(target=ask, args=(urlsplit(url).port, theirs))
    asker.start()
    try:
        work()
        ours.send(None)
        return list(ours.recv())
    finally:
        asker.join(60)
        asker.kill()


def crowd(url: str) -> None:
    """Creates, all at once."""

    def create(number: int) -> None:
        httpx.post(f"{url}/v1/fork", json={"template": "python", "id": f"c-{number}"}, timeout=300)

    with ThreadPoolExecutor(CREATES) as pool:
        list(pool.map(create, range(CREATES)))


def large_fork(url: str) -> None:
    """One source, 64 children."""
    httpx.post(f"{url}/v1/fork", json={"template": "python", "id": "source"}, timeout=60)
    ids = [f"child-{number}" for number in range(CHILDREN)]
    httpx.post(f"{url}/v1/sandboxes/source/fork", json={"ids": ids}, timeout=300)


def flood(url: str) -> None:
    """Terminals whose programs never stop, each read as fast as one client can."""
    ids = [f"flood-{number}" for number in range(SANDBOXES)]
    for sandbox in ids:
        httpx.post(f"{url}/v1/fork", json={"template": "python", "id": sandbox}, timeout=60)
    said = json.dumps({"kind": "input", "data": base64.b64encode(b"yes\n").decode()})
    with contextlib.ExitStack() as opened:
        terminals = []
        for number in range(TERMINALS):
            address = f"{url.replace('http', 'ws', 1)}/v1/pty?sandbox={ids[number % SANDBOXES]}"
            terminal = websocket.create_connection(address, subprotocols=["mitos.pty.v1"])
            opened.callback(terminal.shutdown)
            terminal.send(said)
            terminals.append(terminal)
        until = time.monotonic() + FLOOD_S
        while time.monotonic() < until:
            for terminal in terminals:
                terminal.recv()


def end_all(url: str) -> None:
    """Ends every sandbox."""
    for row in httpx.get(f"{url}/v1/sandboxes", timeout=60).json():
        httpx.delete(f"{url}/v1/sandboxes/{row['id']}", timeout=60)
    time.sleep(2)


def rows(url: str) -> Iterator[str]:
    """Of the table."""
    for name, work in (
        ("nothing else", lambda: time.sleep(5)),
        (f"{CREATES} creates at once", lambda: crowd(url)),
        (f"a fork into {CHILDREN}", lambda: large_fork(url)),
        (f"{TERMINALS} terminals that flood", lambda: flood(url)),
    ):
        times = measured(url, work)
        p99 = statistics.quantiles(times, n=100)[-1]
        figures = (statistics.median(times), p99, max(times))
        cells = " | ".join(f"{1000 * figure:.1f}" for figure in figures)
        yield f"| {name} | {len(times)} | {cells} |"
        end_all(url)


def main() -> None:
    """Measures, prints and perhaps records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, help="write the table here")
    record = parser.parse_args().record
    today = datetime.now(timezone.utc).date()
    with tempfile.TemporaryDirectory() as work:
        home = Path(work, "home")
        home.mkdir()
        for name in ("rootfs", "bin"):
            (home / name).symlink_to(Path("/var/lib/mitos", name))
        with own_server(home) as url:
            lines = [
                f"# Overload\n\n`bench/overload.py`, {today}. {machine()}.\n",
                "Milliseconds until `GET /v1/health` was answered, over a new connection.\n",
                "| meanwhile | asked | p50 | p99 | longest |",
                "| --- | ---: | ---: | ---: | ---: |",
                *rows(url),
            ]
    print("\n".join(lines))
    if record:
        record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
