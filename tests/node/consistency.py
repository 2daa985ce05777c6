"""What must hold of a node between any two requests, whatever failed before."""

from __future__ import annotations

from mitos.engine.fake import FakeEngine
from mitos.node.phase import Phase
from mitos.node.state.event import Event, EventFeed, EventKind
from mitos.node.state.persist import SandboxRow
from tests.node.conftest import Node

__all__ = ["all_kept", "check", "fold"]


def all_kept(feed: EventFeed) -> list[Event]:
    """Every event that the feed still has."""
    return list(feed._events)


def fold(events: list[Event]) -> dict[str, SandboxRow]:
    """The living by uid, as a reader of the feed knows them."""
    living: dict[str, SandboxRow] = {}
    for event in events:
        if event.sandbox is None:
            continue
        if event.kind is EventKind.CREATED:
            assert event.sandbox.uid not in living, "created twice"
        else:
            assert event.sandbox.uid in living, f"{event.kind.value} of one that does not live"
        if event.kind is EventKind.ENDED:
            del living[event.sandbox.uid]
        else:
            living[event.sandbox.uid] = event.sandbox
    return living


def check(node: Node, engine: FakeEngine) -> None:
    """Memory, database, feed, machines and files say the same."""
    parts = node._parts
    living = {sandbox.uid: sandbox.row for sandbox in parts.registry.living()}

    assert living == {row.uid: row for row in parts.state.sandboxes.living()}
    assert living == fold(all_kept(parts.state.events))
    machines = {row.machine_id for row in living.values() if row.machine_id is not None}
    assert machines == set(engine.machines)
    asleep = {row.uid for row in living.values() if row.phase is Phase.HIBERNATED}
    assert asleep == {path.name for path in (node.settings.home / "hibernated").iterdir()}
    assert {None} >= {row.machine_id for row in living.values() if row.uid in asleep}
    kept = parts.state.database.query("SELECT id, uid FROM checkpoint")
    folders = {path.name for path in (node.settings.home / "checkpoints").iterdir()}
    assert {checkpoint for checkpoint, _ in kept} == folders
    assert {uid for _, uid in kept} <= living.keys()
    assert [] == list(node.settings.scratch.iterdir())
