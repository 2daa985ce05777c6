"""Clients that connect all the time, until a line comes: `python -m tests.service.load URL`.

Says what became of their connections, as JSON.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import sys
import threading
from urllib.parse import urlsplit

CLIENTS = 8
TIMEOUT_S = 60


def main() -> None:
    place = urlsplit(sys.argv[1])
    stop = threading.Event()
    counts: collections.Counter[str] = collections.Counter()

    def connect_again_and_again() -> None:
        while not stop.is_set():
            counts[ask(place.hostname or "", place.port or 0)] += 1

    clients = [threading.Thread(target=connect_again_and_again) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    print("begun", flush=True)
    sys.stdin.readline()
    stop.set()
    for client in clients:
        client.join()
    print(json.dumps(counts))


def ask(host: str, port: int) -> str:
    """What became of one request on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.connect()
        except OSError as exc:
            return f"not connected: {type(exc).__name__}"
        try:
            connection.request("GET", "/v1/health")
            return f"answered {connection.getresponse().status}"
        except (OSError, http.client.HTTPException) as exc:
            return f"broken: {type(exc).__name__}"


if __name__ == "__main__":
    main()
