"""Ports of sandboxes: what is refused, and what is answered without asking the port."""

from __future__ import annotations

import httpx
import pytest

from tests.server.exposing import PORT, expose
from tests.server.serving import Server


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8000x"])
def test_a_port_must_be_one(exposing: Server, page: str, port: str) -> None:
    assert 400 == exposing.get(expose(page, port=port)).status_code


def test_an_unknown_sandbox(exposing: Server) -> None:
    assert 502 == exposing.get(expose("nobody")).status_code


def test_the_key_is_asked_before_the_port_is_read(exposing: Server, page: str) -> None:
    for port in (PORT, "no port"):
        answer = httpx.get(exposing.url + expose(page, port=port), trust_env=False)
        assert 401 == answer.status_code
