"""The bearer key, compared in constant time, and where else a request may carry a token. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Scope

from mitos.wire.errors import ApiError

__all__ = ["bearer", "check_key", "cookies", "query_token"]

_SCHEME = "Bearer "


def check_key(header: str | None, api_key: str | None) -> None:
    """Checks the `Authorization` header against the key; without a key everybody may call.

    Raises:
        ApiError: `unauthorized`.
    """
    if api_key is None:
        return
    given = bearer(header)
    if not given or not hmac.compare_digest(given.encode("utf-8", "replace"), api_key.encode()):
        raise ApiError("unauthorized", "the bearer key is missing or wrong")


def bearer(header: str | None) -> str:
    """The key or token of an `Authorization` header; empty when it has none."""
    return header[len(_SCHEME) :] if header and header.startswith(_SCHEME) else ""


def query_token(scope: Scope) -> str:
    """The parameter `token` of a request; empty when it has none."""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return next((value for name, value in pairs if name == "token"), "")


def cookies(headers: Headers, wanted: str) -> Iterator[str]:
    """The values of every cookie of a name."""
    for pair in (part.strip() for line in headers.getlist("cookie") for part in line.split(";")):
        name, _, value = pair.partition("=")
        if name == wanted:
            yield value
