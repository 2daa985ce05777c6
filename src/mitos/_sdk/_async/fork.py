"""Asking a server for sandboxes: from a template, or as copies of one that runs.

What comes back are their descriptors, from which `direct.py` makes handles. Servers may be older
than the SDK: one that does not know a route, or to make several at once, is asked in another way.
"""

from __future__ import annotations

import contextlib
from typing import Any

from mitos._sdk import answer, failure, request, tree
from mitos._sdk._async.http import AsyncHttp
from mitos.errors import AgentRunError

__all__ = ["all_children", "from_template", "some_children"]


async def from_template(
    http: AsyncHttp, template: str, sandbox_id: str, key: str | None, region: str | None
) -> dict[str, Any]:
    """Starts a sandbox from a template.

    Raises:
        AgentRunError: the server could not.
    """
    body = {"template": template, "id": sandbox_id}
    if region:
        body["region"] = region
    made = await http.fork("/v1/fork", body, key or request.new_key())
    return answer.descriptor(made, http.api_key)


async def all_children(
    http: AsyncHttp, source_id: str, template: str, ids: list[str]
) -> list[dict[str, Any]]:
    """Copies a running sandbox under each of the ids.

    Raises:
        AgentRunError: the server could not; those that had come up are ended.
    """
    made: list[dict[str, Any]] = []
    try:
        while len(made) < len(ids):
            # One request for all; a server that does not know `ids` makes one child a request.
            wanted = ids[len(made) : len(made) + 1] if made else ids
            made += await _children(http, source_id, template, wanted)
    except BaseException:
        for row in made:
            with contextlib.suppress(AgentRunError):
                await http.call("DELETE", f"/v1/sandboxes/{row['id']}")
        raise
    return made


async def some_children(
    http: AsyncHttp, source_id: str, template: str, ids: list[str]
) -> tuple[list[dict[str, Any]], dict[str, AgentRunError]]:
    """Copies a running sandbox; what came up, and for each other id why it did not.

    All are asked for at once; then one by one those of which the answer says nothing.

    Raises:
        AgentRunError: the server refused the whole fork, or gave no answer.
    """
    body = {**request.fork_body(template, ids), "ids": ids, "partial": True}
    reply: Any = {"children": [], "errors": []}
    try:
        reply = await http.fork(f"/v1/sandboxes/{source_id}/fork", body, request.new_key())
    except AgentRunError as exc:
        if not failure.is_missing_route(exc):
            raise
    made, errors = tree.partial(reply, ids, http.api_key)
    for sandbox_id in tree.unanswered(ids, made, errors):
        try:
            made += await _children(http, source_id, template, [sandbox_id])
        except AgentRunError as exc:
            errors[sandbox_id] = exc
    return made, errors


async def _children(
    http: AsyncHttp, source_id: str, template: str, ids: list[str]
) -> list[dict[str, Any]]:
    """Asks once; a server without the route for it may have the older one, for one child."""
    body = request.fork_body(template, ids)
    try:
        made = await http.fork(f"/v1/sandboxes/{source_id}/fork", body, request.new_key())
    except AgentRunError as exc:
        if not failure.is_missing_route(exc):
            raise
        body = {"template": template, "id": ids[0], "source": source_id}
        made = await http.fork("/v1/fork", body, request.new_key())
    return answer.children(made, ids, http.api_key)
