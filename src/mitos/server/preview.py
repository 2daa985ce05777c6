"""Preview URLs: a browser's way to a port inside a sandbox, by name and by signed token.

`https://<label>.<domain>/?token=…`, where the label is the sandbox's id in lower case. A browser
that shows a valid token gets a session cookie and is sent to the same page without the token, so
that what the page loads finds its way; other clients send the token each time. The order of the
checks is the wire contract's, section 4.3.
"""

from __future__ import annotations

import html
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from mitos.node.node import Node
from mitos.server.errors import envelope_response
from mitos.server.expose import SESSION_COOKIE, Exposure, Target
from mitos.server.journal import note_code, note_operation, note_sandbox
from mitos.server.settings import PreviewSettings
from mitos.wire import preview
from mitos.wire.errors import ApiError
from mitos.wire.preview import Grant, GrantError

__all__ = ["Preview", "answer_error", "mint_url", "query_token", "without_token"]

SESSION_S = 3600
MAX_LABEL = 63

RESERVED = {
    *("www", "app", "api", "console", "gateway", "admin", "auth", "login", "account", "mail"),
    *("static", "assets", "cdn", "status"),
}


def mint_url(node: Node, settings: PreviewSettings, sandbox_id: str, port: int) -> tuple[str, int]:
    """A URL for one port of a sandbox, and the unix second in which it expires.

    Raises:
        ApiError: `not_found`; `invalid_input` for an id that cannot be a host name.
    """
    node.get_sandbox(sandbox_id)
    label = sandbox_id.lower()
    alike = [each.id for each in node.list_sandboxes() if each.id.lower() == label]
    if len(label) > MAX_LABEL or label in RESERVED or len(alike) > 1:
        raise ApiError(
            "invalid_input",
            f"the id {sandbox_id} cannot be part of a host name",
            remediation=f"Use an id of at most {MAX_LABEL} characters that differs from others by"
            " more than case and is no reserved name.",
            context={"sandbox": sandbox_id},
        )
    expires_unix = int(time.time()) + settings.ttl_s
    token = preview.mint(settings.secret, Grant(sandbox_id, port, expires_unix))
    origin = urlsplit(settings.origin)
    return f"{origin.scheme}://{label}.{origin.netloc}/?token={token}", expires_unix


class Preview:
    """Serves the hosts under the preview domain.

    Args:
        node: runs the sandboxes.
        settings: domain and secret.
        exposure: the way to their ports.
    """

    def __init__(self, node: Node, settings: PreviewSettings, exposure: Exposure) -> None:
        self._node = node
        self._settings = settings
        self._exposure = exposure
        self._domain = urlsplit(settings.origin).hostname or ""

    def is_addressed(self, scope: Scope) -> bool:
        """True for a request whose `Host` is under the preview domain."""
        return scope["type"] in ("http", "websocket") and _host(scope).endswith(f".{self._domain}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_operation("preview")
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve(scope, receive, watch)
        except ApiError as exc:
            if started:
                raise
            await answer_error(scope, receive, send, exc)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        sandbox_id = self._find(_host(scope))
        note_sandbox(sandbox_id)
        headers = Headers(scope=scope)
        grant, by_session = self._grant(scope, headers)
        if grant.sandbox_id != sandbox_id:
            raise ApiError("forbidden", "the token is for another sandbox")
        if not by_session and _is_navigation(scope, headers):
            await self._start_session(scope, receive, send, grant)
            return
        target = Target(sandbox_id, grant.port, without_token(scope))
        await self._exposure.carry(scope, receive, send, target)

    def _find(self, host: str) -> str:
        label = host.removesuffix(f".{self._domain}")
        if "." not in label and label not in RESERVED:
            for record in self._node.list_sandboxes():
                if record.id.lower() == label:
                    return record.id
        raise ApiError(
            "not_found",
            "no sandbox has this address",
            remediation="It may have ended: ask for a new preview URL with get_host.",
        )

    def _grant(self, scope: Scope, headers: Headers) -> tuple[Grant, bool]:
        """What the client may reach, and whether its cookie says so."""
        now = time.time()
        cookies = Headers(raw=list(headers.raw)).getlist("cookie")
        for pair in (part.strip() for line in cookies for part in line.split(";")):
            name, _, value = pair.partition("=")
            if name == SESSION_COOKIE:
                try:
                    return preview.open_session(self._settings.secret, value, now_unix=now), True
                except GrantError:
                    pass  # a token may come beside it
        token = query_token(scope) or _bearer(headers)
        if not token:
            raise _unauthorized("a token is needed")
        try:
            return preview.verify(self._settings.secret, token, now_unix=now), False
        except GrantError as exc:
            raise _unauthorized(str(exc)) from exc

    async def _start_session(
        self, scope: Scope, receive: Receive, send: Send, grant: Grant
    ) -> None:
        expires_unix = min(grant.expires_unix, int(time.time()) + SESSION_S)
        session = Grant(grant.sandbox_id, grant.port, expires_unix)
        # One slash: two would name another host.
        page = "/" + without_token(scope).decode("latin-1").lstrip("/")
        response = RedirectResponse(page, status_code=302)
        response.set_cookie(
            SESSION_COOKIE,
            preview.start_session(self._settings.secret, session),
            max_age=SESSION_S,
            path="/",
            secure=True,
            httponly=True,
            samesite="lax",
        )
        MutableHeaders(response.headers)["Referrer-Policy"] = "no-referrer"
        await response(scope, receive, send)


async def answer_error(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answers a request for a port with what went wrong: a page, JSON or a line of text."""
    response = _error_response(Headers(scope=scope), error)
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    start = {"type": "websocket.http.response.start", "status": response.status_code}
    await send({**start, "headers": response.raw_headers})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})


def _error_response(headers: Headers, error: ApiError) -> Response:
    accepted = headers.get("accept", "")
    note_code(error.code)
    if "text/html" in accepted:
        return HTMLResponse(_page(error), status_code=error.status)
    if "application/json" in accepted:
        return envelope_response(error)
    return PlainTextResponse(f"{error.message}\n{error.remediation}\n", status_code=error.status)


def _page(error: ApiError) -> str:
    parts = (error.message, error.cause, error.remediation)
    title, cause, remediation = (html.escape(part) for part in parts)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{error.status} {title}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:40em;margin:15vh auto;padding:0 1em}"
        "small{color:#666}</style>"
        f"<h1>{title[:1].upper()}{title[1:]}</h1><p>{cause}</p><p>{remediation}</p>"
        f"<small>{error.status} {error.code}</small></html>\n"
    )


def query_token(scope: Scope) -> str:
    """The parameter `token` of a request, or an empty text."""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return next((value for name, value in pairs if name == "token"), "")


def without_token(scope: Scope, path: bytes | None = None) -> bytes:
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


def _is_navigation(scope: Scope, headers: Headers) -> bool:
    """A browser that shows a page, and will load what the page needs."""
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return is_read and bool(query_token(scope)) and "text/html" in headers.get("accept", "")


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


def _host(scope: Scope) -> str:
    host = Headers(scope=scope).get("host", "")
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _unauthorized(message: str) -> ApiError:
    return ApiError(
        "unauthorized",
        "this preview URL cannot be used",
        cause=message,
        remediation="Ask for a new preview URL with get_host.",
    )
