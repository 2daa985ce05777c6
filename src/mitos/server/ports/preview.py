"""Preview URLs: a browser's way to a port inside a sandbox, by name and by signed token.

`https://<label>.<domain>/?token=…`, where the label is the sandbox's id in lower case. The gate has
checked the token or session. A browser that showed a token gets a session cookie and is sent to the
same page without the token, so that what the page loads finds its way; other clients send the token
each time.
"""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from mitos.node.lifecycle.sandbox import SandboxRecord
from mitos.node.principal import LOCAL
from mitos.node.tenant import Tenant
from mitos.server.gate import caller, host
from mitos.server.gate.credential import query_token
from mitos.server.gate.preview import (
    MAX_LABEL,
    RESERVED,
    SESSION_COOKIE,
    PreviewGate,
    no_such_host,
)
from mitos.server.journal import note_sandbox
from mitos.server.ports.proxy import PortProxy, answered
from mitos.server.ports.target import Target, path_without_token
from mitos.server.settings import PreviewSettings
from mitos.server.tenant import Tenants
from mitos.wire import preview
from mitos.wire.errors import ApiError
from mitos.wire.preview import Grant

__all__ = ["PreviewHosts", "mint_url"]

SESSION_S = 3600


def mint_url(
    tenant: Tenant, settings: PreviewSettings, sandbox_id: str, port: int
) -> tuple[str, int]:
    """A URL for one port of a sandbox, and the unix second in which it expires.

    Raises:
        ApiError: `not_found`; `invalid_input` for an id that cannot be a host name.
    """
    record = tenant.get_sandbox(sandbox_id)
    label = sandbox_id.lower()
    alike = [each.id for each in tenant.list_sandboxes() if each.id.lower() == label]
    if len(label) > MAX_LABEL or label in RESERVED or len(alike) > 1:
        raise ApiError(
            "invalid_input",
            f"the id {sandbox_id} cannot be part of a host name",
            remediation=f"Use an id of at most {MAX_LABEL} characters that differs from others by"
            " more than case and is no reserved name.",
            context={"sandbox": sandbox_id},
        )
    expires_unix = int(time.time()) + settings.ttl_s
    owner = "" if tenant.principal == LOCAL else tenant.owner
    grant = Grant(sandbox_id, port, expires_unix, record.uid, owner)
    token = preview.mint(settings.secret, grant)
    origin = urlsplit(settings.origin)
    return f"{origin.scheme}://{label}.{origin.netloc}/?token={token}", expires_unix


class PreviewHosts:
    """Serves the hosts under the preview domain.

    Args:
        tenants: whose sandboxes they are.
        settings: domain and secret.
        proxy: the way to their ports.
    """

    def __init__(self, tenants: Tenants, settings: PreviewSettings, proxy: PortProxy) -> None:
        self._tenants = tenants
        self._secret = settings.secret
        self._gate = PreviewGate(settings)
        self._proxy = proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def serve(send: Send) -> None:
            await self._serve(scope, receive, send)

        await answered(scope, receive, send, serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        asking, headers = caller.caller(), Headers(scope=scope)
        grant = asking.grant
        assert grant is not None
        record = self._find(self._tenants.of(asking.principal), headers)
        note_sandbox(record.id)
        asking.check_reach(record.id, grant.port, uid=record.uid)
        if not asking.has_session and _is_navigation(scope, headers):
            await self._start_session(scope, receive, send, grant)
            return
        target = Target(record.id, grant.port, path_without_token(scope))
        await self._proxy.carry(scope, receive, send, target)

    def _find(self, tenant: Tenant, headers: Headers) -> SandboxRecord:
        label = self._gate.label(host.read(headers))
        for record in tenant.list_sandboxes():
            if record.id.lower() == label:
                return record
        raise no_such_host()

    async def _start_session(
        self, scope: Scope, receive: Receive, send: Send, grant: Grant
    ) -> None:
        expires_unix = min(grant.expires_unix, int(time.time()) + SESSION_S)
        session = replace(grant, expires_unix=expires_unix)
        # One slash: two would name another host.
        page = "/" + path_without_token(scope).decode("latin-1").lstrip("/")
        response = RedirectResponse(page, status_code=302)
        response.set_cookie(
            SESSION_COOKIE,
            preview.start_session(self._secret, session),
            max_age=SESSION_S,
            path="/",
            secure=True,
            httponly=True,
            samesite="lax",
        )
        MutableHeaders(response.headers)["Referrer-Policy"] = "no-referrer"
        await response(scope, receive, send)


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """A browser that shows a page, and will load what the page needs."""
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return is_read and bool(query_token(scope)) and "text/html" in headers.get("accept", "")
