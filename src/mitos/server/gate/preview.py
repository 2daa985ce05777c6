"""Preview hosts and the credentials that open one port of one sandbox: a token, or a session.

A preview host is one label under the preview domain. The checks are in the order of the wire
contract, section 4.3. Nothing here knows which sandboxes exist: the gate asks for that before.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from mitos.node.principal import LOCAL, Principal
from mitos.server.gate.caller import Caller, other_reach
from mitos.server.gate.credential import bearer, cookies, query_token
from mitos.server.gate.host import Authority
from mitos.server.settings import PreviewSettings
from mitos.wire import preview
from mitos.wire.errors import ApiError
from mitos.wire.preview import Grant, GrantError

__all__ = ["MAX_LABEL", "RESERVED", "SESSION_COOKIE", "PreviewGate", "no_such_host"]

SESSION_COOKIE = "__Host-mitos_expose"
MAX_LABEL = 63

RESERVED = {
    *("www", "app", "api", "console", "gateway", "admin", "auth", "login", "account", "mail"),
    *("static", "assets", "cdn", "status"),
}
"""Labels that are no sandbox's."""


class PreviewGate:
    """Admits requests to ports of sandboxes by what the client shows for that port.

    Args:
        settings: domain and secret.
    """

    def __init__(self, settings: PreviewSettings) -> None:
        self._secret = settings.secret
        self._suffix = f".{(urlsplit(settings.origin).hostname or '').lower()}"

    def label(self, host: Authority | None) -> str | None:
        """What stands before the preview domain; None for a host that is not under it."""
        if host is None or not host.name.endswith(self._suffix):
            return None
        return host.name.removesuffix(self._suffix)

    def admit_to_host(self, label: str, scope: Scope, headers: Headers) -> Caller:
        """Admits a request to a preview host: by the token of its link, its session, or a bearer.

        The token comes first: the session may be an ended sandbox's. What is no valid token may be
        a parameter or credential of the program's own, and the session decides.

        Raises:
            ApiError: `not_found` for a host that no sandbox can have, `unauthorized`.
        """
        if "." in label or label in RESERVED:
            raise no_such_host()
        shown = [
            (preview.verify, query_token(scope)),
            *((preview.open_session, cookie) for cookie in cookies(headers, SESSION_COOKIE)),
            (preview.verify, bearer(headers.get("authorization"))),
        ]
        why = ""
        for read, text in shown:
            if not text:
                continue
            try:
                grant = read(self._secret, text, now_unix=time.time())
            except GrantError as exc:
                why = why or str(exc)
                continue
            return _caller(grant, has_session=read is preview.open_session)
        raise _unauthorized(why or "a token is needed")

    def admit_to_port(self, token: str, sandbox_id: str, port: str) -> Caller:
        """Admits a request to the expose route by its token.

        Raises:
            ApiError: `unauthorized`; `forbidden` for a token of another sandbox or port.
        """
        try:
            grant = preview.verify(self._secret, token, now_unix=time.time())
        except GrantError as exc:
            raise ApiError("unauthorized", "the token cannot be used", cause=str(exc)) from exc
        if (grant.sandbox_id, str(grant.port)) != (sandbox_id, port):
            raise other_reach("it is for another sandbox or port")
        return _caller(grant)


def _caller(grant: Grant, *, has_session: bool = False) -> Caller:
    return Caller(Principal(grant.owner or LOCAL.owner), grant, has_session=has_session)


def no_such_host() -> ApiError:
    """The refusal of a preview host that leads to no sandbox."""
    return ApiError(
        "not_found",
        "no sandbox has this address",
        remediation="It may have ended: ask for a new preview URL with get_host.",
    )


def _unauthorized(message: str) -> ApiError:
    return ApiError(
        "unauthorized",
        "this preview URL cannot be used",
        cause=message,
        remediation="Ask for a new preview URL with get_host.",
    )
