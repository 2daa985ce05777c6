from __future__ import annotations

import json

from mitos.wire.link import KernelEventKind, Status, Tag

from .client import AgentClient, Stream


def kinds(cell: Stream) -> list[str]:
    return [event.kind.name for event in cell.events]


def said(cell: Stream, kind: KernelEventKind) -> str:
    return b"".join(event.payload for event in cell.events if event.kind is kind).decode()


def results(cell: Stream) -> list[dict]:
    return [json.loads(e.payload) for e in cell.events if e.kind is KernelEventKind.RESULT]


def error(cell: Stream) -> dict:
    (payload,) = [e.payload for e in cell.events if e.kind is KernelEventKind.ERROR]
    return json.loads(payload)


def test_the_last_expression_is_the_result(client: AgentClient) -> None:
    cell = client.run_code("import math; math.sqrt(144)")

    assert cell.status is Status.OK
    assert results(cell) == [{"text": "12.0", "data": {"text/plain": "12.0"}}]
    assert cell.fields.get_int(Tag.EXIT_CODE) == 0


def test_state_is_kept(client: AgentClient) -> None:
    client.run_code("x = 41")

    assert results(client.run_code("x + 1"))[0]["text"] == "42"
