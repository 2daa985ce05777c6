"""The `Host` of a request. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

__all__ = ["Authority", "parse", "read"]

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and maybe a port.

    Attributes:
        name: in lower case; an address in its shortest form, without brackets.
        port: None when it is not said.
    """

    name: str
    port: int | None


def parse(text: str) -> Authority | None:
    """A host such as `localhost:8080` or `[::1]`; None when it is none.

    Example:
        >>> parse("LocalHost.:80"), parse("[0::1]"), parse("a/b")
        (Authority(name='localhost', port=80), Authority(name='::1', port=None), None)
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    name, port = _normal(match[1]), int(match[2]) if match[2] else None
    return Authority(name, port) if name and (port is None or port <= 65_535) else None


def read(headers: Headers) -> Authority | None:
    """The host of a request; None when it is missing, malformed or said twice."""
    given = headers.getlist("host")
    return parse(given[0]) if len(given) == 1 else None


def _normal(name: str) -> str:
    name = name.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return "" if name.startswith("[") else name
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
