"""What every resource needs of a request: body, ids, idempotency key, the caller's view.

Reading the body is where a hostile one is bounded and parsed. Without a key it must also come as
what it is: a page of another site can send text or a form to any address, but no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mitos.node.tenant import Tenant
from mitos.server.identifier import checked_id
from mitos.server.journal import note_sandbox
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants
from mitos.wire.errors import ApiError, bad_member

__all__ = ["Body", "Call", "Front", "Handler", "checked_sandbox_id", "flag", "integer"]

Body = dict[str, Any]
Handler = Callable[["Call"], Awaitable[object]]

MAX_IDEMPOTENCY_KEY = 255
"""Characters; a UUID has 36."""

_SURROGATE = re.compile(r"\\u[dD]")
"""Only an escape can bring one in: UTF-8 has none."""

_SHOWN = 80
"""Characters of a content type that a refusal repeats."""


class Call:
    """One request.

    Attributes:
        settings: of the server.
    """

    def __init__(self, request: Request, settings: ServerSettings, tenants: Tenants) -> None:
        self.settings = settings
        self._request = request
        self._tenants = tenants
        self._raw = bytearray()

    @property
    def tenant(self) -> Tenant:
        """The caller's view of the node."""
        return self._tenants.current()

    @property
    def idempotency_key(self) -> str | None:
        """The header, if it was sent with a value.

        Raises:
            ApiError: `invalid_input`, it is too long to be remembered.
        """
        key = self.header("idempotency-key")
        if len(key) > MAX_IDEMPOTENCY_KEY:
            raise bad_member("Idempotency-Key", f"at most {MAX_IDEMPOTENCY_KEY} characters")
        return key or None

    @property
    def sandbox_id(self) -> str:
        """The sandbox in the path.

        Raises:
            ApiError: `invalid_input`.
        """
        return checked_sandbox_id(self.path("id"))

    def header(self, name: str) -> str:
        """A header; empty when it is absent."""
        return self._request.headers.get(name, "")

    def path(self, name: str) -> str:
        """A variable part of the path."""
        return str(self._request.path_params[name])

    def query(self, name: str) -> str:
        """A parameter of the query; empty when it is absent."""
        return self._request.query_params.get(name, "")

    async def read(self) -> None:
        """Takes in the body, before anything is done.

        Raises:
            ApiError: `body_too_large` as soon as it is; `invalid_json` for a body that comes as
                something else; `canceled` when the client goes away in the middle.
        """
        said = self._request.headers.get("content-length", "")
        self._check_size(int(said) if said.isdecimal() and len(said) < 20 else 0)
        try:
            async for piece in self._request.stream():
                self._raw += piece
                self._check_size(len(self._raw))
        except ClientDisconnect as exc:
            raise ApiError("canceled", "the client went away before its request was here") from exc
        if self._raw and self.settings.api_key is None:
            self._check_content_type()

    def body(self) -> Body:
        """The body, a JSON object of Unicode text: whatever of it is kept can be given back.

        Raises:
            ApiError: `invalid_json`; `invalid_input` for half a surrogate pair.
        """
        try:
            text = self._raw.decode("utf-8-sig")
            body = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ApiError("invalid_json", "the request body is not JSON") from exc
        if not isinstance(body, dict):
            raise ApiError("invalid_json", "the request body is not a JSON object")
        if _SURROGATE.search(text):
            _check_unicode(body)
        return body

    def _check_size(self, size: int) -> None:
        if size > self.settings.max_body_bytes:
            limit_mib = self.settings.max_body_bytes >> 20
            raise ApiError("body_too_large", f"the request body is over {limit_mib} MiB")

    def _check_content_type(self) -> None:
        sent = self._request.headers.get("content-type", "")
        if sent.partition(";")[0].strip().lower() != "application/json":
            said = f"as {sent[:_SHOWN]!r}" if sent else "without a Content-Type"
            raise ApiError(
                "invalid_json",
                f"the request body was sent {said}, not as application/json",
                remediation="Send the header Content-Type: application/json"
                " (with curl: -H 'Content-Type: application/json').",
            )


class Front:
    """Makes the routes.

    Args:
        settings: of the server.
        tenants: whose sandboxes they are.
    """

    def __init__(self, settings: ServerSettings, tenants: Tenants) -> None:
        self._settings = settings
        self._tenants = tenants

    def route(self, method: str, path: str, handler: Handler) -> Route:
        """A route whose handler's result is the answer, as JSON unless it is a response already."""

        async def serve(request: Request) -> Response:
            call = Call(request, self._settings, self._tenants)
            if method == "POST":
                await call.read()
            result = await handler(call)
            return result if isinstance(result, Response) else JSONResponse(result)

        return Route(path, serve, methods=[method], name=handler.__name__.lstrip("_"))


def _check_unicode(body: Body) -> None:
    for member, value in body.items():
        try:
            json.dumps([member, value], ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            shown = ascii(member)[:_SHOWN]
            raise bad_member(shown, "Unicode text, without half a surrogate pair") from None


def checked_sandbox_id(value: object, kind: str = "sandbox") -> str:
    """The value, if it is a sandbox's id; the journal then names that sandbox.

    Raises:
        ApiError: `invalid_input`.
    """
    sandbox_id = checked_id(value, kind)
    note_sandbox(sandbox_id)
    return sandbox_id


def integer(body: Body, member: str) -> int:
    """A member that is a whole number.

    Raises:
        ApiError: `invalid_input`.
    """
    value = body.get(member)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ApiError("invalid_input", f"{member} must be a whole number")


def flag(body: Body, member: str) -> bool:
    """A member that is true or false; false when it is left out.

    Raises:
        ApiError: `invalid_input`.
    """
    value = body.get(member)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ApiError("invalid_input", f"{member} must be true or false")
