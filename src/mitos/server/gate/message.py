"""Requests that HTTP knows and this server does not take, whoever sends them. Pure."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from mitos.wire.errors import ApiError

__all__ = ["check"]


def check(scope: Scope) -> None:
    """Refuses a tunnel, and a body whose length is said in two ways.

    A program in a sandbox that took either would change how the connection's next bytes are read
    (RFC 9110, section 9.3.6; RFC 9112, section 6.1).

    Raises:
        ApiError: `invalid_input`.
    """
    if scope.get("method") == "CONNECT":
        raise ApiError(
            "invalid_input",
            "this server is no proxy: CONNECT is not served",
            remediation="Use the expose route or a forwarded port to reach a port of a sandbox.",
            status=405,
        )
    headers = Headers(scope=scope)
    if "content-length" in headers and "transfer-encoding" in headers:
        raise ApiError(
            "invalid_input",
            "the request has both Content-Length and Transfer-Encoding",
            remediation="Send one of them.",
        )
