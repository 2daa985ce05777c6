"""Who may call: one bearer key, compared in constant time, before anything is looked up."""

from __future__ import annotations

import hmac

from mitos.wire.errors import ApiError

__all__ = ["authorize"]

_SCHEME = "Bearer "


def authorize(header: str | None, api_key: str | None) -> None:
    """Checks the `Authorization` header against the key; without a key everybody may call.

    Raises:
        ApiError: `unauthorized`.
    """
    if api_key is None:
        return
    given = header[len(_SCHEME) :] if header and header.startswith(_SCHEME) else ""
    if not given or not hmac.compare_digest(given.encode(), api_key.encode()):
        raise ApiError("unauthorized", "the bearer key is missing or wrong")
