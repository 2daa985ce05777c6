"""Who may call: one bearer key, compared in constant time, before anything is looked up."""

from __future__ import annotations

import hmac
from typing import Any

from connectrpc.request import RequestContext

from mitos.server.errors import connect_error
from mitos.wire.errors import ApiError

__all__ = ["AuthInterceptor", "authorize"]

_SCHEME = "Bearer "


def authorize(header: str | None, api_key: str | None) -> None:
    """Checks the `Authorization` header against the key; without a key everybody may call.

    Raises:
        ApiError: `unauthorized`.
    """
    if api_key is None:
        return
    given = header[len(_SCHEME) :] if header and header.startswith(_SCHEME) else ""
    if not given or not hmac.compare_digest(given.encode("utf-8", "replace"), api_key.encode()):
        raise ApiError("unauthorized", "the bearer key is missing or wrong")


class AuthInterceptor:
    """Checks the key of each runtime call, before any of its body is read.

    Args:
        api_key: None serves everybody.
    """

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    async def on_start(self, ctx: RequestContext[Any, Any]) -> None:
        """Refuses a call without the key.

        Raises:
            ConnectError: `unauthenticated`.
        """
        try:
            authorize(ctx.request_headers.get("authorization"), self._api_key)
        except ApiError as exc:
            raise connect_error(exc) from exc

    async def on_end(
        self, token: None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        """Nothing to undo."""
