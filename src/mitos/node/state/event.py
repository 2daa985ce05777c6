"""The feed of what happens to sandboxes and templates: append-only, numbered, read from any point.

An event is written in the transaction of what it tells of, so the feed is never ahead of the state
and never behind it. The last `KEPT` events are in memory and in the database: readers resume by
number, also at the next server. Who asks for less than is kept, or for a number that was never
given, starts over from the listing. A feed that begins anew numbers from the time it is, in
microseconds, so that it does not know the numbers of another one.

Each event of a sandbox carries its whole row as it is afterwards, so that folding is one step:
`ended` removes the row of a uid, every other kind sets it.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mitos.node.clock import Clock
from mitos.node.end import EndReason
from mitos.node.state import persist
from mitos.node.state.database import Database, Transaction
from mitos.node.state.persist import SandboxRow, TemplateRow
from mitos.wire.errors import ApiError

__all__ = ["Event", "EventFeed", "EventKind"]

_log = logging.getLogger(__name__)

KEPT = 4096
"""How many of the last events can be read again."""

_TRIM_EVERY = 256
_GAP = 1 << 20
"""Numbers that a new server leaves out: events that a predecessor told of but could not write, on
a full disk before a crash, had some of them.
"""


class EventKind(str, enum.Enum):
    """What happened."""

    CREATED = "created"
    PHASE = "phase"
    DEADLINE = "deadline"
    RESTORED = "restored"
    RENAMED = "renamed"
    ENDED = "ended"
    TEMPLATE = "template"
    TEMPLATE_DELETED = "template_deleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        id: grows from event to event, with gaps.
        at: unix seconds.
        owner: whose sandbox or template it is.
        sandbox: as it is afterwards, or was last; None for templates.
        template: likewise; None for sandboxes.
        reason: of an end.
    """

    id: int
    at: float
    owner: str
    kind: EventKind
    sandbox: SandboxRow | None = None
    template: TemplateRow | None = None
    reason: EndReason | None = None


class EventFeed:
    """The events of one node.

    Who writes drafts an event, writes it in the transaction of what it tells of, and publishes it
    afterwards, all without waiting in between: numbers are published in their order.

    Args:
        database: has those of earlier servers.
        clock: dates them.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._clock = clock
        rows = database.query("SELECT id, owner, at, kind, body FROM event ORDER BY id")
        self._events = _readable(rows[-KEPT:])
        begin = max([int(clock.now() * 1e6), *(row[0] + _GAP for row in rows[-1:])])
        self._floor = self._events[0].id - 1 if self._events else begin
        self._next_id = rows[-1][0] + _GAP if self._events else begin + 1
        self._news = asyncio.Event()
        self._is_closed = False
        self._listeners: list[Callable[[Event], None]] = []

    @property
    def last_id(self) -> int:
        """The number of the last event; before the first one, the number before its own."""
        return self._events[-1].id if self._events else self._floor

    def last_of_template(self, owner: str, template_id: str) -> EventKind | None:
        """What was told last of a template; None when it is not known any more."""
        for event in reversed(self._events):
            told = event.template
            if told is not None and (told.owner, told.id) == (owner, template_id):
                return event.kind
        return None

    def draft(
        self,
        kind: EventKind,
        *,
        sandbox: SandboxRow | None = None,
        template: TemplateRow | None = None,
        reason: EndReason | None = None,
    ) -> Event:
        """An event with its number, of a sandbox or of a template."""
        subject = sandbox or template
        assert subject is not None
        event_id, self._next_id = self._next_id, self._next_id + 1
        at = self._clock.now()
        return Event(event_id, at, subject.owner, kind, sandbox, template, reason)

    def write(self, transaction: Transaction, event: Event) -> None:
        """Writes an event down, and removes what is older than is kept."""
        row = (event.id, event.owner, event.at, event.kind.value, _encode(event))
        transaction.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", row)
        if event.id % _TRIM_EVERY == 0:
            transaction.execute(
                "DELETE FROM event WHERE id <="
                " (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )

    def publish(self, event: Event) -> None:
        """Tells the readers."""
        if len(self._events) >= KEPT:
            self._floor = self._events.popleft().id
        self._events.append(event)
        news, self._news = self._news, asyncio.Event()
        news.set()
        for listener in self._listeners:
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Calls back with each event from now on, at once, on the event loop's thread."""
        self._listeners.append(listener)

    def after(self, cursor: int) -> list[Event] | None:
        """The events after a number, oldest first.

        Returns:
            None when they are no longer known, or the number was never given: start over from the
            listing, and go on from `last_id`.
        """
        if not self._floor <= cursor <= self.last_id:
            return None
        found: list[Event] = []
        for event in reversed(self._events):
            if event.id <= cursor:
                break
            found.append(event)
        return found[::-1]

    async def wait(self, cursor: int) -> bool:
        """Waits until there is an event after the number; False once no more can come."""
        while self.last_id <= cursor and not self._is_closed:
            await self._news.wait()
        return not self._is_closed

    def close(self) -> None:
        """Lets those who wait go: nothing more comes."""
        self._is_closed = True
        self._news.set()


def _encode(event: Event) -> str:
    body: dict[str, Any] = {"reason": event.reason}
    if event.sandbox is not None:
        body["sandbox"] = persist.sandbox_columns(event.sandbox)
    if event.template is not None:
        body["template"] = persist.template_columns(event.template)
    return json.dumps(body)


def _readable(rows: list[tuple[Any, ...]]) -> deque[Event]:
    """The events of earlier servers; none when one is damaged: readers then begin anew."""
    try:
        return deque(map(_decode, rows))
    except (ApiError, ValueError, KeyError, TypeError, AttributeError) as exc:
        _log.error("the feed of events is damaged and begins anew: %r", exc)
        return deque()


def _decode(row: tuple[Any, ...]) -> Event:
    event_id, owner, at, kind, text = row
    body = json.loads(text)
    sandbox, template = body.get("sandbox"), body.get("template")
    return Event(
        id=event_id,
        at=at,
        owner=owner,
        kind=EventKind(kind),
        sandbox=persist.decode_sandbox(tuple(sandbox)) if sandbox else None,
        template=persist.decode_template(tuple(template)) if template else None,
        reason=EndReason(body["reason"]) if body["reason"] else None,
    )
