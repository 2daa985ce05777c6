"""The feed of what happens, as server-sent events: `spec/events.md`.

A reader names the last event it has, in `Last-Event-ID` or in the query, and gets what came after;
one that names none, or one that is no longer known, gets the listing first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.routing import Route

from mitos.node.follow import Listing, Quiet
from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.node.state.event import Event
from mitos.node.template.templates import TemplateRecord
from mitos.server.rest.request import Body, Call, Front
from mitos.server.rest.sandbox import sandbox_detail
from mitos.server.rest.template import template_body
from mitos.wire.errors import ApiError

__all__ = ["routes"]

QUIET_S = 15.0
"""How often a reader hears something when nothing happens: proxies end what is silent."""

MAX_ID = 1 << 63


def routes(front: Front) -> list[Route]:
    """The resource's routes."""
    return [front.route("GET", "/v1/events", _follow)]


async def _follow(call: Call) -> StreamingResponse:
    cursor = _cursor(call.header("last-event-id") or call.query("after"))
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(_stream(call, cursor), media_type="text/event-stream", headers=headers)


async def _stream(call: Call, cursor: int | None) -> AsyncGenerator[str]:
    async with aclosing(call.tenant.follow(cursor, quiet_s=QUIET_S)) as items:
        async for item in items:
            match item:
                case Quiet():
                    yield ": quiet\n\n"
                case Listing():
                    yield _message(item.last_id, "listing", _listing(item, call))
                case Event():
                    yield _message(item.id, item.kind.value, _event(item, call))


def _message(event_id: int, kind: str, body: Body) -> str:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"


def _listing(listing: Listing, call: Call) -> Body:
    return {
        "sandboxes": [_sandbox(record, call) for record in listing.sandboxes],
        "templates": [template_body(record) for record in listing.templates],
    }


def _event(event: Event, call: Call) -> Body:
    body: Body = {"id": event.id, "at_unix": event.at}
    if event.sandbox is not None:
        body["sandbox"] = _sandbox(SandboxRecord.of(event.sandbox), call)
    if event.template is not None:
        body["template"] = template_body(TemplateRecord.of(event.template))
    if event.reason is not None:
        body["reason"] = event.reason.value
    return body


def _sandbox(record: SandboxRecord, call: Call) -> Body:
    return {**sandbox_detail(record, call), "uid": record.uid}


def _cursor(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < MAX_ID:
        return int(text)
    raise ApiError(
        "invalid_input",
        "the last event's id is not a number",
        remediation="Send the id of an event as it was received, or none.",
    )
