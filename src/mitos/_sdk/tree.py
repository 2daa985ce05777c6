"""Values of the fork tree, and how a server's answers become them. Pure.

`mitos/_sdk/_async/direct.py` makes the calls; `mitos.types` is where users find the types.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from mitos._sdk import answer, failure, request
from mitos.errors import AgentRunError
from mitos.types import Checkpoint, FileDiff, Kin

__all__ = ["checkpoint", "checkpoint_id", "checkpoints", "diff", "partial", "tree"]

_T = TypeVar("_T")


def tree(value: Any, api_key: str | None) -> list[Kin]:
    """The members of a family, oldest first.

    Raises:
        AgentRunError: `invalid_response`.
    """
    rows = answer.rows(value, "nodes", api_key)
    return [_read(_kin, row, api_key) for row in rows]


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
    value: Any, api_key: str | None
) -> tuple[list[dict[str, Any]], dict[str, AgentRunError]]:
    """The children of a partial fork, and the error of each id that did not come up.

    Raises:
        AgentRunError: `invalid_response`.
    """
    children = answer.rows(value, "children", api_key)
    errors = answer.rows(value, "errors", api_key)
    made = [answer.descriptor(row, api_key) for row in children]
    return made, {str(row.get("id")): _error(row, api_key) for row in errors}


def _error(row: dict[str, Any], api_key: str | None) -> AgentRunError:
    return failure.from_control_plane(500, json.dumps(row).encode(), api_key)


def _kin(row: dict[str, Any]) -> Kin:
    return Kin(
        uid=row["uid"],
        id=row["id"],
        parent_uid=row["parent_uid"],
        template=row["template_id"],
        created_at_unix=row["created_at_unix"],
        phase=row["phase"],
        ended_at_unix=row.get("ended_at_unix"),
        reason=row.get("reason"),
    )


def _diff(row: dict[str, Any]) -> FileDiff:
    return FileDiff(list(row["added"]), list(row["removed"]), list(row["modified"]))


def _checkpoint(row: dict[str, Any]) -> Checkpoint:
    created_at = datetime.fromisoformat(row["created_at"])
    return Checkpoint(row["id"], row["name"], created_at, int(row["size_bytes"]))


def _read(make: Callable[[dict[str, Any]], _T], row: dict[str, Any], api_key: str | None) -> _T:
    try:
        return make(row)
    except (KeyError, TypeError, ValueError) as exc:
        raise failure.invalid_response(repr(row).encode(), api_key) from exc


def checkpoint_id(wanted: Checkpoint | str) -> str:
    """The id of a checkpoint, safe in a path.

    Raises:
        AgentRunError: `invalid_sandbox_id`, it is none.
    """
    return request.checked_id(wanted if isinstance(wanted, str) else wanted.id)
