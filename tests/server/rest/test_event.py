"""`GET /v1/events`: whoever folds it has the listing, however often the connection breaks."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mitos.node.state import event as event_module
from mitos.server.rest import event as route_module
from tests.server.answer import outcome
from tests.server.serving import Server, serving_fake
from tests.server.waiting import until

OPERATIONS = 500
WORKERS = 3


@dataclass(frozen=True)
class Message:
    """One server-sent event."""

    id: int
    kind: str
    data: dict[str, Any]


@contextmanager
def stream(
    server: Server, *, after: str | None = None, **headers: str
) -> Iterator[Iterator[Message]]:
    """The messages of one connection; leaving it breaks the connection."""
    query = {} if after is None else {"after": after}
    with (
        server.client(headers=headers) as client,
        client.stream("GET", "/v1/events", params=query) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield messages(response.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif fields.keys() >= {"id", "event", "data"}:
            yield Message(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


class Reader:
    """Folds the feed in a thread of its own, over as many connections as it likes."""

    def __init__(self, server: Server, patience: Callable[[], int], *, by_header: bool) -> None:
        self._server = server
        self._patience = patience
        self._by_header = by_header
        self._stop = threading.Event()
        self.cursor: int | None = None
        self.living: dict[str, dict[str, Any]] = {}
        self.connections = self.listings = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="event-reader")
        self._thread.start()

    def finish(self, last_id: int) -> None:
        """Lets it catch up, then ends it."""
        until(lambda: self.error or (self.cursor or 0) >= last_id, deadline_s=20)
        self._stop.set()
        # Something to wake up for, unlike what the last one woke up for.
        domains = [f"reader-{self._thread.ident}.test:80"]
        network = {"allow_domains": domains}
        self._server.post("/v1/templates", json={"id": "base", "network": network})
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._connect()
        except Exception as exc:  # noqa: BLE001  told by `finish`
            self.error = exc

    def _connect(self) -> None:
        resumed = None if self.cursor is None else str(self.cursor)
        headers = {"Last-Event-ID": resumed} if resumed and self._by_header else {}
        self.connections += 1
        left = self._patience()
        with stream(self._server, after=None if headers else resumed, **headers) as found:
            for message in found:
                self._take(message)
                left -= 1
                if left <= 0 or self._stop.is_set():
                    return

    def _take(self, message: Message) -> None:
        if message.kind == "listing":
            self.listings += 1
            self.living = {row["uid"]: row for row in message.data["sandboxes"]}
        elif "sandbox" in message.data:
            assert self.cursor is not None
            assert message.id > self.cursor, "told twice"
            row = message.data["sandbox"]
            assert (row["uid"] in self.living) is (message.kind != "created"), message
            if message.kind == "ended":
                assert message.data["reason"]
                del self.living[row["uid"]]
            else:
                self.living[row["uid"]] = row
        self.cursor = message.id


def operate(server: Server, client: httpx.Client, random_: random.Random, number: int) -> None:
    """One request; refusals are part of it."""
    ids = [row["id"] for row in client.get("/v1/sandboxes").json()]
    one = random_.choice(ids) if ids else "none"
    path = f"/v1/sandboxes/{one}"
    children = [f"f{number}a", f"f{number}b"]
    acts: list[Callable[[], httpx.Response]] = [
        lambda: client.post("/v1/fork", json={"template": "python", "id": f"s{number}"}),
        lambda: client.post("/v1/fork", json={"template": "python", "id": f"t{number % 7}"}),
        lambda: client.post(f"{path}/fork", json={"id": children[0], "ids": children}),
        lambda: client.delete(path),
        lambda: client.delete(f"{path}?subtree=true"),
        lambda: client.post("/v1/pause", json={"sandbox": one}),
        lambda: client.post("/v1/resume", json={"sandbox": one}),
        lambda: client.post(f"{path}/hibernate"),
        lambda: client.post(f"{path}/promote"),
        lambda: client.post("/v1/set_timeout", json={"sandbox": one, "timeout_seconds": 600}),
        lambda: client.post(f"{path}/checkpoints", json={"name": "kept"}),
    ]
    answer = random_.choice(acts)()
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 10))]
)
@pytest.mark.timeout(180)
def test_folding_the_feed_gives_exactly_the_listing(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 operations at once with readers that stay, break, resume, sleep too long or come late."""
    monkeypatch.setattr(event_module, "KEPT", 150)
    with serving_fake(tmp_path) as server:
        random_ = random.Random(seed)
        steady = Reader(server, lambda: 1 << 30, by_header=True)
        hasty = Reader(server, lambda: random_.randint(1, 5), by_header=True)
        browsing = Reader(server, lambda: random_.randint(1, 30), by_header=False)
        until(lambda: all(each.listings for each in (steady, hasty, browsing)))

        def work(worker: int) -> None:
            own = random.Random(seed * 100 + worker)
            with server.client() as client:
                for number in range(worker, OPERATIONS, WORKERS):
                    operate(server, client, own, number)

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(WORKERS)))
        late = Reader(server, lambda: 1 << 30, by_header=True)

        listed = {row["id"]: row for row in server.get("/v1/sandboxes").json()}
        last_id = server.node.events.last_id
        for reader in (steady, hasty, browsing, late):
            reader.finish(last_id)
            rows = [{k: v for k, v in row.items() if k != "uid"} for row in reader.living.values()]
            assert listed == {row["id"]: row for row in rows}
        assert 1 == steady.listings == steady.connections
        assert hasty.connections > 20


def test_a_number_that_is_no_longer_known_begins_with_the_listing(
    server: Server, sandbox: str
) -> None:
    for number in (0, 1 << 40):
        server.node.events._floor = max(server.node.events._floor, 1)
        with stream(server, after=str(number)) as found:
            first = next(found)
        assert "listing" == first.kind
        assert [sandbox] == [row["id"] for row in first.data["sandboxes"]]
        templates = server.get("/v1/templates").json()
        assert {row["id"] for row in templates} == {row["id"] for row in first.data["templates"]}


def test_an_end_says_why(server: Server, sandbox: str) -> None:
    with stream(server) as found:
        first = next(found)
        server.delete(f"/v1/sandboxes/{sandbox}")
        ended = next(message for message in found if message.kind == "ended")

    assert "listing" == first.kind
    assert (sandbox, "terminated") == (ended.data["sandbox"]["id"], ended.data["reason"])


def test_templates_are_told(server: Server) -> None:
    with stream(server) as found:
        next(found)
        server.post("/v1/templates", json={"id": "base", "network": {"egress": "allow"}})
        made = next(found)
        server.delete("/v1/templates/base")
        deleted = next(found)

    assert ("template", "allow") == (made.kind, made.data["template"]["network"]["egress"])
    assert ("template_deleted", "base") == (deleted.kind, deleted.data["template"]["id"])


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30, "\N{FULLWIDTH DIGIT ONE}"])
def test_what_is_no_number_is_refused(server: Server, text: str) -> None:
    answer = server.get("/v1/events", params={"after": text})

    assert (400, "invalid_input") == outcome(answer)


def test_it_needs_the_key(keyed: Server) -> None:
    with httpx.Client(base_url=keyed.url, trust_env=False) as client:
        assert 401 == client.get("/v1/events").status_code


def test_a_quiet_stream_says_that_it_lives(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_module, "QUIET_S", 0.05)
    with server.client() as client, client.stream("GET", "/v1/events") as response:
        lines = response.iter_lines()
        assert ": quiet" in (next(lines) for _ in range(20))


def test_open_streams_end_with_the_server(tmp_path: Path) -> None:
    with serving_fake(tmp_path) as server, stream(server) as found:
        next(found)
        server.stop()
        assert [] == list(found)
        server.join()
