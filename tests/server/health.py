"""Somebody who asks for a server's health, again and again, while others do as they like."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.server.serving import Server

PAUSE_S = 0.02
GIVEN_UP_S = 10.0


@dataclass
class Health:
    """How long the server took to answer, in seconds, one for each question."""

    answers: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The time that so large a share of the answers did not take longer than."""
        ordered = sorted(self.answers)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@contextlib.contextmanager
def asking(server: Server) -> Iterator[Health]:
    """Asks while the block runs, each time over a new connection."""
    found, done = Health(), threading.Event()

    def ask() -> None:
        while not done.wait(PAUSE_S):
            started = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GIVEN_UP_S)
            try:
                connection.request("GET", "/v1/health")
                status = connection.getresponse().status
                if status != 200:
                    found.failures.append(f"status {status}")
            except OSError as exc:
                found.failures.append(repr(exc))
            finally:
                connection.close()
            found.answers.append(time.monotonic() - started)

    thread = threading.Thread(target=ask, name="health")
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
