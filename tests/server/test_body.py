"""Whose body may stall: nobody's but a call's of the runtime service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from mitos.server import body
from mitos.server.body import BodyDeadline
from mitos.server.runtime import application
from mitos.wire.errors import ApiError


async def ask(monkeypatch: pytest.MonkeyPatch, path: str, content_type: bytes) -> None:
    monkeypatch.setattr(body, "BODY_STALL_S", 0.05)

    async def read(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    async def receive() -> Any:
        await asyncio.sleep(0.3)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        raise AssertionError("nothing is answered")

    scope = {"type": "http", "path": path, "headers": [(b"content-type", content_type)]}
    await BodyDeadline(read, is_call=application.is_addressed)(scope, receive, send)


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/connect+json"])
async def test_a_call_may_wait_with_its_messages(
    monkeypatch: pytest.MonkeyPatch, content_type: bytes
) -> None:
    await ask(monkeypatch, "/sandbox.v1.Sandbox/ExecStream", content_type)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/fork", b"application/grpc"),
        ("/v1/sandboxes/a/expose/80/", b"application/connect+json"),
        ("/sandbox.v1.Sandbox/List", b"application/json"),
    ],
)
async def test_nobody_else_may_by_its_type(
    monkeypatch: pytest.MonkeyPatch, path: str, content_type: bytes
) -> None:
    with pytest.raises(ApiError) as caught:
        await ask(monkeypatch, path, content_type)

    assert 408 == caught.value.status
