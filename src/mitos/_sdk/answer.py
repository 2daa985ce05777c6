"""From a server's answer to the value in it, or to the error it stands for. Pure."""

from __future__ import annotations

import json
from typing import Any

from mitos._sdk import failure
from mitos.wire.ids import is_valid_id

__all__ = ["children", "content", "descriptor", "members", "number", "rows"]

_DESCRIPTOR_MEMBERS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "template_id": (str,),
    "endpoint": (str,),
    "fork_time_ms": (int, float),
}


def content(body: bytes, api_key: str | None) -> Any:
    """What a 2xx answer holds; None when it is empty.

    Raises:
        AgentRunError: `invalid_response` when it is not JSON.
    """
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise failure.invalid_response(body, api_key) from exc


def members(value: Any, api_key: str | None) -> dict[str, Any]:
    """An answer that must be an object; an empty one is one without members.

    Raises:
        AgentRunError: `invalid_response`.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise _unexpected(value, api_key)


def rows(value: Any, name: str, api_key: str | None) -> list[dict[str, Any]]:
    """An answer that must be a list of objects, bare or as the member `name` of an object.

    Raises:
        AgentRunError: `invalid_response`.
    """
    found = value.get(name) if isinstance(value, dict) else value
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return found
    raise _unexpected(value, api_key)


def number(value: Any, name: str, api_key: str | None) -> int:
    """A whole number of an answer; 0 when it is not there.

    Raises:
        AgentRunError: `invalid_response`.
    """
    found = members(value, api_key).get(name, 0)
    try:
        return int(found)
    except (TypeError, ValueError, OverflowError) as exc:
        raise _unexpected(value, api_key) from exc


def descriptor(value: Any, api_key: str | None) -> dict[str, Any]:
    """An answer that must describe a sandbox.

    Raises:
        AgentRunError: `invalid_response`.
    """
    if (
        isinstance(value, dict)
        and all(isinstance(value.get(name), kind) for name, kind in _DESCRIPTOR_MEMBERS.items())
        and is_valid_id(value["id"])
    ):
        return value
    raise _unexpected(value, api_key)


def children(value: Any, ids: list[str], api_key: str | None) -> list[dict[str, Any]]:
    """The sandboxes that a fork's answer describes: its `children`, or the one that it is.

    They are at most those of `ids`; a server that does not know `ids` has made the first.

    Raises:
        AgentRunError: `invalid_response`.
    """
    first = descriptor(value, api_key)
    found = first.get("children")
    if not isinstance(found, list) or not found:
        found = [first]
    if len(found) <= len(ids):
        return [descriptor(row, api_key) for row in found]
    raise _unexpected(value, api_key)


def _unexpected(value: Any, api_key: str | None) -> Exception:
    return failure.invalid_response(json.dumps(value).encode(), api_key)
