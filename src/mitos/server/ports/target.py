"""Which port of which sandbox a request is for, and the path the port sees. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.types import Scope

from mitos.wire.errors import ApiError

__all__ = ["MAX_PORT", "Target", "checked_port", "path_without_token"]

MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes.

    Attributes:
        sandbox_id: a running sandbox.
        port: TCP port on its loopback.
        path: what the port sees, query included; starts with a slash.
    """

    sandbox_id: str
    port: int
    path: bytes


def checked_port(number: int, name: str = "port") -> int:
    """The number, if it is a TCP port's.

    Args:
        number: what was asked for.
        name: what the request calls it.

    Raises:
        ApiError: `invalid_input`.
    """
    if 1 <= number <= MAX_PORT:
        return number
    raise ApiError("invalid_input", f"{name} must be from 1 to {MAX_PORT}")


def path_without_token(scope: Scope, path: bytes | None = None) -> bytes:
    """The path and query a port gets to see: dots resolved, the token gone.

    Args:
        scope: of the request.
        path: in place of the request's own.
    """
    raw = scope.get("raw_path", scope["path"].encode()) if path is None else path
    query = scope["query_string"].decode("latin-1")
    if "token=" in query:
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([pair for pair in pairs if pair[0] != "token"])
    cleaned = _without_dots(raw)
    return cleaned + b"?" + query.encode("latin-1") if query else cleaned


def _without_dots(path: bytes) -> bytes:
    """`/a/./b/../c` is `/a/c`; nothing is above the root."""
    kept: list[bytes] = []
    parts = path.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            del kept[-1:]
        elif part != b".":
            kept.append(part)
    if parts and parts[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
