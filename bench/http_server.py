"""Which HTTP server: one small ASGI application under each candidate, the same calls to both.

    pip install granian uvicorn && bench/http_server.py [--rounds 500]

Both candidates run at the same time and take turns, so that both see the same machine. uvicorn is
the baseline: it has no HTTP/2 and cannot be chosen. Prints p50 and p95 in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SERVERS = {
    "uvicorn": ("uvicorn", "--port", "{port}", "--log-level", "error", "--app-dir"),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:{port}", "--log-level", "error"),
    "granian": (
        *("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
        *("--log-level", "error"),
    ),
}
START_DEADLINE_S = 20
STREAM_CHUNKS = 200


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[..., Any]) -> None:
    """Echoes a JSON body, or streams 200 pieces of 32 KiB."""
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"")
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/stream":
        piece = b"x" * 32768
        for _ in range(STREAM_CHUNKS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(name: str) -> Iterator[int]:
    """Runs the application under a server; the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program, *options = (part.format(port=port) for part in SERVERS[name])
    if name == "uvicorn":
        options.append(".")
    argv = [str(Path(sys.executable).parent / program), *options, "http_server:app"]
    process = subprocess.Popen(argv, cwd=Path(__file__).parent)
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class Client:
    """Calls one server over one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def call(self, path: str = "/call") -> float:
        """One call; how long it took, in milliseconds."""
        started = time.perf_counter()
        self._connection.request("POST", path, json.dumps({"a": 1}))
        self._connection.getresponse().read()
        return (time.perf_counter() - started) * 1000


def at_once(port: int, calls: int) -> float:
    """Milliseconds a call with 16 connections at once."""
    clients = [Client(port) for _ in range(16)]
    started = time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda client: [client.call() for _ in range(calls)], clients))
    return (time.perf_counter() - started) * 1000 / (16 * calls)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500)
    rounds = parser.parse_args().rounds
    with contextlib.ExitStack() as running:
        ports = {name: running.enter_context(serving(name)) for name in SERVERS}
        clients = {name: Client(port) for name, port in ports.items()}
        calls: dict[str, list[float]] = {name: [] for name in SERVERS}
        streams: dict[str, list[float]] = {name: [] for name in SERVERS}
        for number in range(rounds):
            for name, client in clients.items():
                calls[name].append(client.call())
                if number % 20 == 0:
                    streams[name].append(client.call("/stream"))
        print(
            "| server | call p50 ms | call p95 ms | 16 at once, ms a call | 6.4 MB stream p50 ms |"
        )
        print("| --- | --- | --- | --- | --- |")
        for name, port in ports.items():
            p95 = statistics.quantiles(calls[name], n=20)[-1]
            print(
                f"| {name} | {statistics.median(calls[name]):.2f} | {p95:.2f}"
                f" | {at_once(port, 50):.2f} | {statistics.median(streams[name]):.1f} |"
            )


if __name__ == "__main__":
    main()
