"""An owner's events as a stream that never has a hole: from a number on, or from the listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.node.parts import Parts
from mitos.node.state.event import Event
from mitos.node.template.templates import TemplateRecord

__all__ = ["FeedItem", "Listing", "Quiet", "follow"]


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a stream begins that cannot go on from a number.

    Attributes:
        last_id: of the last event that is in it.
    """

    last_id: int
    sandboxes: list[SandboxRecord]
    templates: list[TemplateRecord]


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing has happened for a while."""


FeedItem = Listing | Event | Quiet


async def follow(
    parts: Parts, owner: str, cursor: int | None, quiet_s: float
) -> AsyncGenerator[FeedItem]:
    """Yields what happens to an owner's sandboxes and templates, until the node closes.

    A reader that is slower than the feed keeps starts over from a listing; it holds no memory.

    Args:
        parts: of the node.
        owner: whose events.
        cursor: the number of the last event that the reader has; None for one that has none.
        quiet_s: after how long `Quiet` is yielded.
    """
    feed = parts.state.events
    while True:
        events = None if cursor is None else feed.after(cursor)
        if events is None:
            cursor = feed.last_id
            yield Listing(
                cursor,
                [sandbox.record() for sandbox in parts.registry.living(owner)],
                parts.templates.records(owner),
            )
            continue
        for event in events:
            cursor = event.id
            if event.owner == owner:
                yield event
        try:
            async with asyncio.timeout(quiet_s):
                if not events and not await feed.wait(cursor or 0):
                    return
        except TimeoutError:
            yield Quiet()
