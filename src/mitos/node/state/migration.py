"""The schema of the node's database, and the steps that lead to it from older files.

`PRAGMA user_version` says which steps a file has behind it; a new file goes through all of them.
Each step is one transaction, and is never changed once a server with it was released: what comes
later is a further step. A file of a later server is refused.

    sandbox(uid, owner, id, parent, template, phase, created_at, deadline, ended_at, reason,
            budget, body, used_at)       every sandbox, and the last ended ones
    budget(id, forks_used)               forks from inside that a family has used up
    checkpoint(id, uid, body)            snapshots kept for a sandbox
    template(owner, id, body)            offered again after a restart
    idempotency(owner, key, kind, resources, at)    which resources a key created
    event(id, owner, at, kind, body)     the end of the feed
    boot(only, id)                       in which boot of the host the last server ran
    warm(machine, snapshot)              machines that are kept ready, and what they come from

`persist.py` describes the bodies.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from mitos.node.end import EndReason
from mitos.node.phase import Phase
from mitos.node.principal import LOCAL
from mitos.wire.errors import ApiError

__all__ = ["migrate"]


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a file up to the current schema.

    Raises:
        ApiError: a later server wrote it.
        sqlite3.Error: it cannot be written; it is then as it was.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_STEPS):
        raise ApiError(
            "internal",
            f"the server's state is of version {version}, this server knows {len(_STEPS)}",
            remediation="Start the later server again, or use another --home.",
            status=503,
        )
    for number, step in enumerate(_STEPS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


_FIRST_SCHEMA = """
CREATE TABLE IF NOT EXISTS sandbox (
    id TEXT PRIMARY KEY, template TEXT NOT NULL, machine TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS hibernated (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lineage (
    uid TEXT PRIMARY KEY, id TEXT NOT NULL, parent TEXT, template TEXT NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, reason TEXT);
CREATE TABLE IF NOT EXISTS checkpoint (id TEXT PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ended (id TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS template (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT NOT NULL, kind TEXT NOT NULL, resources TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (key, kind));
"""

_OWNERS = """
ALTER TABLE sandbox RENAME TO old_sandbox;
ALTER TABLE template RENAME TO old_template;
ALTER TABLE idempotency RENAME TO old_idempotency;
ALTER TABLE checkpoint RENAME TO old_checkpoint;
CREATE TABLE sandbox (
    uid TEXT PRIMARY KEY, owner TEXT NOT NULL, id TEXT NOT NULL, parent TEXT,
    template TEXT NOT NULL, phase TEXT NOT NULL, created_at REAL NOT NULL, deadline REAL,
    ended_at REAL, reason TEXT, budget TEXT NOT NULL, body TEXT);
CREATE INDEX sandbox_parent ON sandbox (parent);
CREATE INDEX sandbox_name ON sandbox (owner, id);
CREATE INDEX sandbox_ended ON sandbox (ended_at);
CREATE TABLE budget (id TEXT PRIMARY KEY, forks_used INTEGER NOT NULL);
CREATE TABLE checkpoint (id TEXT PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX checkpoint_uid ON checkpoint (uid);
CREATE TABLE template (
    owner TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (owner, id));
CREATE TABLE idempotency (
    owner TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, resources TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (owner, key, kind));
CREATE INDEX idempotency_at ON idempotency (at);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL);
"""

_SUPERSEDED = """
DROP TABLE old_sandbox;
DROP TABLE hibernated;
DROP TABLE lineage;
DROP TABLE ended;
DROP TABLE old_template;
DROP TABLE old_idempotency;
DROP TABLE old_checkpoint;
"""


def _first_schema(connection: sqlite3.Connection) -> None:
    """The tables of the first server, which numbered nothing; its files have them already."""
    _execute(connection, _FIRST_SCHEMA)


def _owners_and_events(connection: sqlite3.Connection) -> None:
    """One table of sandboxes instead of three; everything has an owner; events."""
    _execute(connection, _OWNERS)
    _take_over_sandboxes(connection)
    _take_over_the_rest(connection)
    _execute(connection, _SUPERSEDED)


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    # `executescript` would commit first.
    for statement in statements.split(";"):
        connection.execute(statement)


def _take_over_sandboxes(connection: sqlite3.Connection) -> None:
    """Hibernated sandboxes live on; what ran ended with the server that ran it."""
    bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM hibernated")]
    asleep = {body["uid"]: body for body in bodies}
    rows = connection.execute(
        "SELECT uid, id, parent, template, created_at, ended_at, reason FROM lineage"
    )
    now = time.time()
    for uid, sandbox_id, parent, template, created_at, *noted in rows.fetchall():
        body = asleep.get(uid)
        phase = Phase.TERMINATING if body is None else Phase.HIBERNATED
        ran = body is None and noted[0] is None
        end = (now, EndReason.SERVER_STOPPED.value) if ran else noted
        remaining_s = body and body["remaining_s"]
        deadline = None if remaining_s is None else now + remaining_s
        connection.execute(
            "INSERT INTO sandbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(uid, LOCAL.owner, sandbox_id, parent, template, phase.value, created_at),
                *(deadline, *end, uid, _sandbox_body(body)),
            ),
        )


def _sandbox_body(old: dict[str, Any] | None) -> str | None:
    if old is None:
        return None
    names = ("parent_id", "created_at", "fork_time_ms", "network", "spec", "format", "remaining_s")
    kept = {"version": 1, "machine": None, **{name: old[name] for name in names}}
    return json.dumps({**kept, "spec": _spec(old["spec"])})


def _spec(old: dict[str, Any]) -> dict[str, Any]:
    """Every root filesystem was a folder."""
    return {**old, "rootfs": {"kind": "folder", "path": old["rootfs"]}}


def _take_over_the_rest(connection: sqlite3.Connection) -> None:
    for checkpoint_id, uid, body in connection.execute("SELECT * FROM old_checkpoint").fetchall():
        kept = json.loads(body)
        kept = {"version": 1, **kept, "spec": _spec(kept["spec"])}
        connection.execute(
            "INSERT INTO checkpoint VALUES (?, ?, ?)", (checkpoint_id, uid, json.dumps(kept))
        )
    for template_id, body in connection.execute("SELECT * FROM old_template").fetchall():
        defaults = {"version": 1, "steps": [], "kernels": ["python"], "preload": []}
        kept = _spec({**defaults, "workload": None, **json.loads(body)})
        connection.execute(
            "INSERT INTO template VALUES (?, ?, ?)", (LOCAL.owner, template_id, json.dumps(kept))
        )
    connection.execute(
        "INSERT INTO idempotency SELECT ?, key, kind, resources, at FROM old_idempotency",
        (LOCAL.owner,),
    )


def _survival(connection: sqlite3.Connection) -> None:
    """For sandboxes that outlive their server. What ran before ended with its own."""
    connection.execute("ALTER TABLE sandbox ADD COLUMN used_at REAL")
    connection.execute("CREATE TABLE boot (only INTEGER PRIMARY KEY, id TEXT NOT NULL)")
    connection.execute("CREATE TABLE warm (machine TEXT PRIMARY KEY, snapshot TEXT NOT NULL)")
    connection.execute(
        "UPDATE sandbox SET body = json_set(body, '$.machine', NULL)"
        " WHERE ended_at IS NULL AND phase <> ?",
        (Phase.HIBERNATED.value,),
    )


_STEPS = (_first_schema, _owners_and_events, _survival)
