"""The gate as an ASGI layer: the one place that decides whether a request is served.

A request to a preview host goes to the previews and never to the API; any other goes to the API and
never to a preview. What is no request for either is refused first. For the API the order is: is the
host served, may the page call, is the route
open, does the credential hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mitos.node.principal import LOCAL
from mitos.server import errors
from mitos.server.gate import caller, host, message, origin
from mitos.server.gate.caller import Caller
from mitos.server.gate.credential import check_key, query_token
from mitos.server.gate.host import Authority, HostRule
from mitos.server.gate.origin import OriginRule
from mitos.server.gate.preview import PreviewGate, no_such_host
from mitos.server.journal import note_operation
from mitos.server.settings import ServerSettings
from mitos.wire.errors import ApiError

__all__ = ["EXPOSE_PATH", "OPEN_PATHS", "Gate"]

OPEN_PATHS = frozenset({"/v1/health", "/healthz", "/readyz"})
"""Served without a key: whether the server is well, which names nobody. Hosts and origins count."""

EXPOSE_PATH = "/v1/sandboxes/{id}/expose/{port}"
"""The one route that a preview's token opens too, with what is below it."""

_EXPOSE = re.compile(r"/v1/sandboxes/([^/]+)/expose/([^/]+)(?:/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Request:
    """What the gate reads of a request."""

    scope: Scope
    headers: Headers
    host: Authority | None

    @classmethod
    def of(cls, scope: Scope) -> _Request:
        headers = Headers(scope=scope)
        return cls(scope, headers, host.read(headers))


class Gate:
    """Lets a request through, with its caller noted, or answers why not.

    Args:
        api: serves what is for the server itself.
        previews: serves preview hosts; None when the settings have no previews.
        settings: the key, what is allowed beside the server's own, and the previews' secret.
        is_sandbox: True for a label that is a sandbox's, whoever owns it.
        renders_refusal: True for a request without the key that `api` itself refuses, in a form
            of its own; it then gets the request with the refusal noted in place of a caller.
    """

    def __init__(
        self,
        api: ASGIApp,
        previews: ASGIApp | None,
        settings: ServerSettings,
        *,
        is_sandbox: Callable[[str], bool],
        renders_refusal: Callable[[Scope], bool],
    ) -> None:
        self._api = api
        self._previews = previews
        self._api_key = settings.api_key
        self._hosts = HostRule(settings.base_url, settings.allowed_hosts)
        self._origins = OriginRule(settings.base_url, settings.allowed_origins)
        self._preview = PreviewGate(settings.preview) if settings.preview is not None else None
        self._is_sandbox = is_sandbox
        self._renders_refusal = renders_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
            return
        try:
            message.check(scope)
        except ApiError as exc:
            await errors.answer(scope, receive, send, exc)
            return
        request = _Request.of(scope)
        label = self._preview.label(request.host) if self._preview is not None else None
        if label is not None:
            await self._serve_preview(label, request, receive, send)
        else:
            await self._serve_api(request, receive, send)

    async def _serve_preview(
        self, label: str, request: _Request, receive: Receive, send: Send
    ) -> None:
        note_operation("preview")
        assert self._preview is not None
        assert self._previews is not None
        try:
            if not self._is_sandbox(label):
                raise no_such_host()
            found = self._preview.admit_to_host(label, request.scope, request.headers)
        except ApiError as exc:
            await errors.answer_page(request.scope, receive, send, exc)
            return
        caller.admit(found)
        await self._previews(request.scope, receive, send)

    async def _serve_api(self, request: _Request, receive: Receive, send: Send) -> None:
        exposed = _EXPOSE.fullmatch(request.scope["path"])
        if exposed:
            note_operation("/v1/sandboxes/*/expose")
        try:
            self._check_site(request, is_link=_is_link(request, exposed))
        except ApiError as exc:
            await errors.answer(request.scope, receive, send, exc)
            return
        page = self._origins.configured(request.headers)
        if page is not None:
            send = origin.with_cors(send, page)
            if origin.is_preflight(request.scope, request.headers):
                await origin.preflight_answer(request.headers)(request.scope, receive, send)
                return
        await self._serve_caller(request, exposed, receive, send)

    async def _serve_caller(
        self, request: _Request, exposed: re.Match[str] | None, receive: Receive, send: Send
    ) -> None:
        scope = request.scope
        try:
            found = self._admit(request, exposed)
        except ApiError as exc:
            if exposed:
                await errors.answer_page(scope, receive, send, exc)
            elif self._renders_refusal(scope):
                caller.refuse(exc)
                await self._api(scope, receive, send)
            else:
                await errors.answer(scope, receive, send, exc)
            return
        caller.admit(found)
        await self._api(scope, receive, send)

    def _check_site(self, request: _Request, *, is_link: bool) -> None:
        """Refuses what a web page sends that is not this server's own.

        Args:
            request: to the server itself.
            is_link: somebody followed a link to a port that has a token in it; wherever that link
                stood, only those have one who were given it.

        Raises:
            ApiError: `forbidden`.
        """
        if self._api_key is None:
            local_address = (request.scope.get("server") or ("",))[0]
            self._hosts.check(request.host, local_address)
        if not is_link:
            self._origins.check(request.headers, request.host)

    def _admit(self, request: _Request, exposed: re.Match[str] | None) -> Caller | None:
        """Who calls; None for what is open to everybody.

        Raises:
            ApiError: `unauthorized`, `forbidden`.
        """
        if request.scope["path"] in OPEN_PATHS:
            return None
        token = query_token(request.scope) if exposed else ""
        if exposed and token and self._preview is not None:
            return self._preview.admit_to_port(token, *exposed.groups())
        check_key(request.headers.get("authorization"), self._api_key)
        return Caller(LOCAL)


def _is_link(request: _Request, exposed: re.Match[str] | None) -> bool:
    """True for a request to a port with a token that no script sent: those have an `Origin`."""
    return bool(exposed and query_token(request.scope)) and "origin" not in request.headers
