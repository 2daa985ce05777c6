"""How a server's answers about the fork tree and its checkpoints become values. Pure.

`_async/direct.py` and `_async/fork.py` make the calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from mitos._sdk import answer, failure, request
from mitos._sdk.value.file import FileDiff
from mitos._sdk.value.fork import Checkpoint, Relative
from mitos.errors import AgentRunError

__all__ = ["checkpoint", "checkpoint_id", "checkpoints", "diff", "partial", "tree", "unanswered"]

_T = TypeVar("_T")


def tree(value: Any, api_key: str | None) -> list[Relative]:
    """The sandboxes of a fork tree, oldest first.

    Raises:
        AgentRunError: `invalid_response`.
    """
    rows = answer.rows(value, "nodes", api_key)
    return [_read(_relative, row, api_key) for row in rows]


def diff(value: Any, api_key: str | None) -> FileDiff:
    """The paths that differ.

    Raises:
        AgentRunError: `invalid_response`.
    """
    return _read(_diff, answer.members(value, api_key), api_key)


def checkpoint(value: Any, api_key: str | None) -> Checkpoint:
    """One checkpoint.

    Raises:
        AgentRunError: `invalid_response`.
    """
    return _read(_checkpoint, answer.members(value, api_key), api_key)


def checkpoints(value: Any, api_key: str | None) -> list[Checkpoint]:
    """A list of checkpoints.

    Raises:
        AgentRunError: `invalid_response`.
    """
    return [checkpoint(row, api_key) for row in answer.rows(value, "checkpoints", api_key)]


def partial(
    value: Any, ids: list[str], api_key: str | None
) -> tuple[list[dict[str, Any]], dict[str, AgentRunError]]:
    """The children of a partial fork, and the error of each id that did not come up.

    A server that does not know partial forks describes the one child that it made.

    Raises:
        AgentRunError: `invalid_response`, also for an id that was not asked for.
    """
    found = answer.members(value, api_key)
    if "children" not in found:
        found = {"children": [found]}
    children = answer.rows(found, "children", api_key)
    errors = answer.rows({"errors": [], **found}, "errors", api_key)
    made = [answer.descriptor(row, api_key) for row in children]
    named = [row.get("id") for row in (*made, *errors)]
    if any(each not in ids or named.count(each) > 1 for each in named):
        raise failure.invalid_response(repr(value).encode(), api_key)
    return made, {row["id"]: _error(row, api_key) for row in errors}


def unanswered(
    ids: list[str], made: list[dict[str, Any]], errors: dict[str, AgentRunError]
) -> list[str]:
    """The ids that a partial fork's answer says nothing of."""
    said = {row["id"] for row in made} | errors.keys()
    return [each for each in ids if each not in said]


def _error(row: dict[str, Any], api_key: str | None) -> AgentRunError:
    return failure.from_control_plane(500, json.dumps(row).encode(), api_key)


def _relative(row: dict[str, Any]) -> Relative:
    ended_at, reason, parent = row.get("ended_at_unix"), row.get("reason"), row["parent_uid"]
    return Relative(
        uid=_text(row["uid"]),
        id=_text(row["id"]),
        parent_uid=None if parent is None else _text(parent),
        template=_text(row["template_id"]),
        created_at_unix=_seconds(row["created_at_unix"]),
        phase=_text(row["phase"]),
        ended_at_unix=None if ended_at is None else _seconds(ended_at),
        reason=None if reason is None else _text(reason),
    )


def _diff(row: dict[str, Any]) -> FileDiff:
    return FileDiff(_paths(row["added"]), _paths(row["removed"]), _paths(row["modified"]))


def _checkpoint(row: dict[str, Any]) -> Checkpoint:
    written = _text(row["created_at"]).replace("Z", "+00:00")  # Python 3.10 does not know the Z
    created_at = datetime.fromisoformat(written)
    checkpoint_id = request.checked_id(row["id"])
    return Checkpoint(checkpoint_id, _text(row["name"]), created_at, int(row["size_bytes"]))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("not a text")


def _seconds(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise TypeError("not a time")


def _paths(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_text(path) for path in value]
    raise TypeError("not a list of paths")


def _read(make: Callable[[dict[str, Any]], _T], row: dict[str, Any], api_key: str | None) -> _T:
    try:
        return make(row)
    except (KeyError, TypeError, ValueError, OverflowError, AgentRunError) as exc:
        raise failure.invalid_response(repr(row).encode(), api_key) from exc


def checkpoint_id(wanted: Checkpoint | str) -> str:
    """The id of a checkpoint, safe in a path.

    Raises:
        AgentRunError: `invalid_sandbox_id`: it is not an id.
    """
    return request.checked_id(wanted if isinstance(wanted, str) else wanted.id)
