"""The `Host` of a request, and the names a server without a key is served under. Pure.

A page in a browser can make a name of its own lead to 127.0.0.1 (DNS rebinding). Its requests are
then same-origin to the browser, and only their `Host` tells them from the user's own.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from mitos.wire.errors import ApiError

__all__ = ["Authority", "HostRule", "parse", "read"]

MAX_HOST = 261
"""Characters: the longest name there is, and a port."""

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
    return _parse(text) if len(text) <= MAX_HOST else None


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> Authority | None:
    """Remembers the last ones: a client says the same each time."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    name, port = _normal(match[1]), int(match[2]) if match[2] else None
    return Authority(name, port) if name and (port is None or port <= 65_535) else None


def read(headers: Headers) -> Authority | None:
    """The host of a request; None when it is missing, malformed or said twice."""
    given = headers.getlist("host")
    return parse(given[0]) if len(given) == 1 else None


class HostRule:
    """Which hosts a server without a key is served under.

    Args:
        base_url: the server's own origin.
        allowed: further names, as configured.
    """

    def __init__(self, base_url: str, allowed: tuple[str, ...]) -> None:
        own = urlsplit(base_url).hostname or ""
        self._names = {_normal(name) for name in ("localhost", own, *allowed)}

    def check(self, host: Authority | None, local_address: str) -> None:
        """Refuses a request under another host.

        Args:
            host: as the request says.
            local_address: where its connection arrived.

        Raises:
            ApiError: `forbidden`.
        """
        if host is not None and (
            host.name in self._names or _is_own_address(host.name, local_address)
        ):
            return
        raise ApiError(
            "forbidden",
            "the request's Host is missing or malformed"
            if host is None
            else f"this server is not served under the host {host.name!r}",
            cause="without a key only known hosts are served, so that no web page can call under a"
            " name of its own",
            remediation="Call it at localhost or 127.0.0.1, or start the server with"
            " `mitos serve --allow-host NAME`.",
        )


def _normal(name: str) -> str:
    """One spelling for each name and address; empty for brackets without an address."""
    name = name.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return "" if name.startswith("[") else name
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _is_own_address(name: str, local_address: str) -> bool:
    """True for an address (no name) that is loopback, or where the connection arrived."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or name == _normal(local_address)
