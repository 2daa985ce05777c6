"""Two callers with owners of their own, over every route and call: neither reaches the other's.

A server knows one owner; the second exists here only, named by a header in place of a key.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import httpx
import pytest

from mitos.node.principal import Principal
from mitos.server.gate.caller import Caller
from mitos.server.gate.layer import OPEN_PATHS, Gate
from mitos.server.settings import PreviewSettings, ServerSettings
from tests.server.gate.test_layer import REQUESTS, Request, name_of
from tests.server.serving import Server, serving_fake

SECRET = b"0123456789abcdef"
SB = "sb-1"
"""The sandbox that the table's requests name."""

NUMBERS = itertools.count()
NAMING = [
    request
    for request in REQUESTS
    if request[1] not in OPEN_PATHS and request[0] != "WEBSOCKET" and "proto" not in str(request[2])
    if SB in request[1] or "x-sandbox-id" in request[2]
]
BODIES = {
    "/restore": {"checkpoint": "cp-0"},
    "/forward": {"guest_port": 80},
    "/fork": {"id": "mine"},
    "/Fork": {"count": 1},
    "/ExtendLifetime": {"additionalSeconds": 60},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose gate takes the owner from a header."""
    settings = ServerSettings(preview=PreviewSettings("http://preview.test", SECRET))
    admit = Gate._admit

    def by_header(self: Gate, request: object, exposed: re.Match[str] | None) -> Caller | None:
        found = admit(self, request, exposed)  # type: ignore[arg-type]
        owner = request.headers.get("x-test-owner")  # type: ignore[attr-defined]
        if found is None or found.grant is not None or owner is None:
            return found
        return Caller(Principal(owner))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Gate, "_admit", by_header)
        with serving_fake(tmp_path_factory.mktemp("shared"), settings=settings) as running:
            yield running


@pytest.fixture
def theirs(shared: Server) -> Iterator[httpx.Client]:
    """Who owns `sb-1`, its child and its checkpoint."""
    with shared.client(headers={"x-test-owner": "theirs"}) as client:
        client.post("/v1/templates", json={"id": "python"}).raise_for_status()
        body = {"template": "python", "id": SB}
        client.post("/v1/fork", json=body, headers={"idempotency-key": "key"}).raise_for_status()
        client.post(f"/v1/sandboxes/{SB}/fork", json={"id": "child"}).raise_for_status()
        client.post(f"/v1/sandboxes/{SB}/checkpoints", json={"name": "kept"}).raise_for_status()
        yield client
        for row in client.get("/v1/sandboxes").json():
            client.delete(f"/v1/sandboxes/{row['id']}")


@pytest.fixture
def mine(shared: Server) -> Iterator[httpx.Client]:
    """Somebody else, new in every test: who had a sandbox of an id is told that it has ended."""
    with shared.client(headers={"x-test-owner": f"mine-{next(NUMBERS)}"}) as client:
        client.post("/v1/templates", json={"id": "python"}).raise_for_status()
        yield client
        for row in client.get("/v1/sandboxes").json():
            client.delete(f"/v1/sandboxes/{row['id']}")


@pytest.mark.parametrize("request_", NAMING, ids=map(name_of, NAMING))
def test_naming_what_is_theirs_finds_nothing(
    mine: httpx.Client, theirs: httpx.Client, request_: Request
) -> None:
    method, path, headers = request_
    before = theirs.get("/v1/sandboxes").json()
    body: object = next((b for end, b in BODIES.items() if path.endswith(end)), {})
    content = json.dumps(body).encode()
    if "connect+" in headers.get("content-type", ""):
        content = bytes(1) + len(content).to_bytes(4, "big") + content
    query = {"with": SB} if path.endswith("/diff") else {}

    answer = mine.request(method, path, content=content, headers=headers, params=query)

    if method == "HEAD":
        assert 404 == answer.status_code
    else:
        assert re.search(f"no (sandbox|template) named '{SB}'", answer.text), answer.text
    assert before == theirs.get("/v1/sandboxes").json()


@pytest.mark.parametrize("path", ["/v1/set_timeout", "/v1/pause", "/v1/resume", "/v1/preview"])
def test_naming_it_in_a_body_finds_nothing(
    mine: httpx.Client, theirs: httpx.Client, path: str
) -> None:
    body = {"sandbox": SB, "timeout_seconds": 60, "port": 80}

    assert 404 == mine.post(path, json=body).status_code


def test_listings_keys_and_ids_are_ones_own(mine: httpx.Client, theirs: httpx.Client) -> None:
    assert [] == mine.get("/v1/sandboxes").json()

    body = {"template": "python", "id": SB}
    made = mine.post("/v1/fork", json=body, headers={"idempotency-key": "key"})

    assert (200, SB) == (made.status_code, made.json()["id"])
    assert [SB] == [row["id"] for row in mine.get("/v1/sandboxes").json()]
    mine.delete(f"/v1/sandboxes/{SB}")
    assert {SB, "child"} == {row["id"] for row in theirs.get("/v1/sandboxes").json()}


def test_a_preview_of_theirs_does_not_open_mine(mine: httpx.Client, theirs: httpx.Client) -> None:
    """The host is the same, since both have a sandbox of that id."""
    mine.post("/v1/fork", json={"template": "python", "id": SB}).raise_for_status()
    url = theirs.post("/v1/preview", json={"sandbox": SB, "port": 8000}).json()["url"]
    theirs.delete(f"/v1/sandboxes/{SB}")
    token = url.partition("?token=")[2]

    at_host = httpx.get(
        f"{mine.base_url}/?token={token}", headers={"host": f"{SB}.preview.test"}, trust_env=False
    )
    exposed = httpx.get(
        f"{mine.base_url}/v1/sandboxes/{SB}/expose/8000/?token={token}", trust_env=False
    )

    # Mine would answer that nothing listens there: 502 with another text.
    assert 404 == at_host.status_code
    assert "has ended" in exposed.text


def test_the_feed_tells_only_of_ones_own(mine: httpx.Client, theirs: httpx.Client) -> None:
    with mine.stream("GET", "/v1/events") as response:
        lines = response.iter_lines()
        listing = next(line for line in lines if line.startswith("data: "))
        theirs.delete(f"/v1/sandboxes/{SB}")
        mine.post("/v1/fork", json={"template": "python", "id": "own"}).raise_for_status()
        event = next(line for line in lines if line.startswith("data: "))

    assert [] == json.loads(listing[6:])["sandboxes"]
    assert "own" == json.loads(event[6:])["sandbox"]["id"]
