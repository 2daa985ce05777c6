"""Requests to ports inside sandboxes: the expose route, preview hosts, forwarded ports."""

from __future__ import annotations

import time

import httpx

from mitos.wire.preview import Grant, mint
from tests.server.serving import DEADLINE_S, Server

SECRET = b"a secret of the tests"
PORT = 8000


def expose(sandbox: str, path: str = "", port: int | str = PORT) -> str:
    return f"/v1/sandboxes/{sandbox}/expose/{port}{path}"


def seen(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """The path and headers that the port was asked with."""
    assert 200 == answer.status_code, answer.text
    body = answer.json()
    return body["path"], {name.lower(): value for name, value in body["headers"]}


def at_host(server: Server, host: str, path: str, **headers: str) -> httpx.Response:
    """A request for a preview host, without the server's key."""
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S, trust_env=False) as client:
        sent = {"Host": f"{host}.preview.test:8443"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(path, headers=sent)


def token(server: Server, sandbox: str, port: int = PORT, *, expires_in_s: int = 100) -> str:
    family = server.get(f"/v1/sandboxes/{sandbox}/tree").json()["nodes"]
    alive = [each for each in family if each["phase"] != "Ended"]
    uid = next(each["uid"] for each in alive if each["id"] == sandbox)
    return mint(SECRET, Grant(sandbox, port, int(time.time()) + expires_in_s, uid))


def forward(server: Server, sandbox: str, port: int = PORT) -> tuple[str, int]:
    answer = server.post(f"/v1/sandboxes/{sandbox}/forward", json={"guest_port": port})
    assert 200 == answer.status_code, answer.text
    host, _, number = answer.json()["host"].partition(":")
    return host, int(number)
