"""Which pages in a browser may call, as the browser itself says. Pure, but for the answers.

`Origin` names the page's site on whatever can change something, and on WebSockets. A plain GET, an
image, a script or a link has none: there `Sec-Fetch-Site` says whether another site sent it.
Programs send neither. Pages of configured origins get the CORS headers they need.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Scope, Send

from mitos.server.gate import host as hosts
from mitos.server.gate.host import Authority
from mitos.wire.errors import ApiError

__all__ = ["Origin", "OriginRule", "is_preflight", "parse", "preflight_answer", "with_cors"]

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]+)")

_OWN_SITES = ("same-origin", "none")
"""Values of `Sec-Fetch-Site` that no other site can cause; `none` is the user's own doing."""

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
PREFLIGHT_S = 600
_HEADER_NAMES = re.compile(r"[A-Za-z0-9, _-]{1,2000}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page is from.

    Attributes:
        scheme: in lower case.
        name: the host, as an `Authority` has it.
        port: the scheme's own when it is not said; None when that has none.
    """

    scheme: str
    name: str
    port: int | None


def parse(text: str) -> Origin | None:
    """An origin such as `https://example.com`; None when it is none, as `null` is.

    Example:
        >>> parse("https://Example.com"), parse("null")
        (Origin(scheme='https', name='example.com', port=443), None)
    """
    match = _ORIGIN.fullmatch(text)
    authority = hosts.parse(match[2]) if match else None
    if match is None or authority is None:
        return None
    scheme = match[1].lower()
    port = _DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port
    return Origin(scheme, authority.name, port)


class OriginRule:
    """Which pages may call.

    Args:
        base_url: the server's own origin.
        allowed: origins of other sites, as configured.
    """

    def __init__(self, base_url: str, allowed: tuple[str, ...]) -> None:
        self._own = parse(base_url)
        self._foreign = set(map(parse, allowed)) - {None}

    def check(self, headers: Headers, host: Authority | None) -> None:
        """Refuses a request that a page of another site caused.

        Args:
            headers: of the request.
            host: under which it came; checked already where it must be.

        Raises:
            ApiError: `forbidden`.
        """
        given = headers.getlist("origin")
        if not given:
            sites = headers.getlist("sec-fetch-site")
            if all(site in _OWN_SITES for site in sites):
                return
            raise _foreign_page("of another site", "its Sec-Fetch-Site says so")
        origin = parse(given[0]) if len(given) == 1 else None
        if origin is None:
            raise _foreign_page("without an origin of its own", "its Origin is null or malformed")
        if not (_is_at(origin, host) or origin == self._own or origin in self._foreign):
            raise _foreign_page(f"from {given[0]}", "its Origin is not this server's")

    def configured(self, headers: Headers) -> str | None:
        """The request's origin, when it is one of the configured ones; else None."""
        given = headers.get("origin")
        return given if given is not None and parse(given) in self._foreign else None


def _is_at(origin: Origin, host: Authority | None) -> bool:
    """True for a page that came under the same host and port.

    The scheme may differ, since a proxy in front may speak TLS. A host without a port has the
    scheme's own, whichever that is.
    """
    if host is None or origin.port is None:
        return False
    port = _DEFAULT_PORTS.get(origin.scheme) if host.port is None else host.port
    return (origin.name, origin.port) == (host.name, port)


def _foreign_page(whose: str, cause: str) -> ApiError:
    return ApiError(
        "forbidden",
        f"a page {whose} may not call this server",
        cause=cause,
        remediation="Call it from a program or from the server's own origin, or let the pages of a"
        " site in with `mitos serve --allow-origin ORIGIN`.",
    )


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """True when a browser asks whether a page may send a request; it sends no key with it."""
    is_options = scope["type"] == "http" and scope["method"] == "OPTIONS"
    return is_options and "access-control-request-method" in headers


def preflight_answer(headers: Headers) -> Response:
    """Tells a browser that a page of a configured origin may send any request."""
    wanted = headers.get("access-control-request-headers", "")
    answer = {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
    if _HEADER_NAMES.fullmatch(wanted):
        answer["Access-Control-Allow-Headers"] = wanted
    return Response(status_code=204, headers=answer)


def with_cors(send: Send, origin: str) -> Send:
    """Lets the page of an origin read the answer."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = "*"
            headers.add_vary_header("Origin")
        await send(message)

    return tell
