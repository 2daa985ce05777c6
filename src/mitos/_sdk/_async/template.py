"""Making templates on a server."""

from __future__ import annotations

from typing import Any

from mitos._sdk import answer
from mitos._sdk._async.http import AsyncHttp
from mitos.errors import AgentRunError

__all__ = ["create", "ensure"]

BUILD_TIMEOUT_S = 3600.0


async def create(http: AsyncHttp, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    """Makes a template, which may take minutes.

    Args:
        http: the server.
        body: as `request.template_body` writes it.
        key: the idempotency key, or None.

    Raises:
        AgentRunError: the server's error, or no answer.
    """
    made = await http.call(
        "POST", "/v1/templates", body, idempotency_key=key, timeout_s=BUILD_TIMEOUT_S
    )
    return answer.members(made, http.api_key)


async def ensure(http: AsyncHttp, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The same, for servers that refuse a template they have."""
    try:
        return await create(http, body, key)
    except AgentRunError as exc:
        if exc.status != 409:
            raise
        return {"id": body["id"], "ready": True}
