"""Carries an HTTP request or a WebSocket to a port inside a sandbox, and the answer back.

Both ways in end here, the expose route and the preview hosts: here a caller's grant is held against
the port, and here a failure becomes an answer.

One connection to the port per request. Bodies stream both ways, nothing is held back, so that
server-sent events and long downloads work. What comes from the port is hostile: its head is
bounded, h11 and wsproto parse it, and headers that belong to one connection go no further.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

import h11
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from mitos.agent.tunnel import Tunnel
from mitos.server import errors
from mitos.server.gate import caller
from mitos.server.gate.preview import SESSION_COOKIE
from mitos.server.journal import note_code
from mitos.server.ports.slots import Slots
from mitos.server.ports.target import Target
from mitos.server.ports.websocket import carry_websocket
from mitos.server.tenant import Tenants
from mitos.wire.errors import ApiError, ConnectCode

__all__ = ["PortProxy", "answered"]

MAX_REQUESTS = 16
"""Requests and WebSockets of one sandbox at the same time."""

MAX_HEAD_BYTES = 64 * 1024
"""Of the head of a program's answer."""

HEAD_DEADLINE_S = 600.0
"""How long a port may think about a request before it sends the first byte of its answer."""

LOOK_S = 5.0
"""How often a client that has stalled in its body is looked for, while the port answers."""

_STATUSES = range(200, 600)
"""Of an answer (RFC 9110, section 15)."""

_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
_REPLACED = {b"host", b"authorization", b"cookie", b"expect"} | {
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
}
_OF_OTHER_PROXIES = b"x-auth-request-"


async def answered(
    scope: Scope, receive: Receive, send: Send, work: Callable[[Send], Awaitable[None]]
) -> None:
    """Runs the work; an error of it is the answer.

    Once an answer has begun, it breaks off: nothing else can tell the client.
    """
    has_begun = False

    async def watch(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        await work(watch)
    except Exception as exc:  # noqa: BLE001  whatever fails, the client is told
        error = exc if isinstance(exc, ApiError) else errors.internal_error(exc)
        if has_begun:
            note_code(error.code)
        else:
            await errors.answer_page(scope, receive, send, error)


class PortProxy:
    """The way to the ports of sandboxes.

    Args:
        tenants: whose sandboxes they are.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._slots: Slots[tuple[str, str]] = Slots()

    async def carry(self, scope: Scope, receive: Receive, send: Send, target: Target) -> None:
        """Serves one request or WebSocket from the port.

        Raises:
            ApiError: nothing was answered yet: the caller's grant is for another port, no such
                sandbox, nothing listens, too many requests, or what the port said is no HTTP.
        """
        asking = caller.caller()
        tenant = self._tenants.of(asking.principal)
        record = tenant.get_sandbox(target.sandbox_id)
        asking.check_reach(target.sandbox_id, target.port, uid=record.uid)
        key = asking.principal.owner, target.sandbox_id
        with self._slots.take(key, MAX_REQUESTS) as is_taken:
            if not is_taken:
                raise ApiError(
                    "too_many_streams",
                    f"sandbox {target.sandbox_id} serves {MAX_REQUESTS} requests already",
                    context={"sandbox": target.sandbox_id},
                )
            agent = tenant.agent(target.sandbox_id)
            async with agent.dial(target.port) as tunnel:
                headers = list(_request_headers(scope))
                if scope["type"] == "websocket":
                    await carry_websocket(scope, receive, send, tunnel, target.path, headers)
                else:
                    await _Request(scope, receive, send, tunnel).carry(target.path, headers)


class _Request:
    """One HTTP request on its way to a port."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, tunnel: Tunnel) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tunnel = tunnel
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._first: Message | None = None
        """Of the body, when it was needed before the head could be sent."""

    async def carry(self, path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends the request and serves the answer; ends early when the client goes."""
        framed = [*headers, *await self._body_framing(), (b"Connection", b"close")]
        try:
            head = h11.Request(method=self._scope["method"], target=path, headers=framed)
            opening = self._connection.send(head)
        except h11.LocalProtocolError as exc:
            raise ApiError("invalid_input", "the request cannot be passed on") from exc
        assert opening is not None
        await self._tunnel.write(opening)
        answer = asyncio.create_task(self._serve_answer(), name="expose-answer")
        client = asyncio.create_task(self._send_body(), name="expose-body")
        try:
            await asyncio.wait((answer, client), return_when=asyncio.FIRST_COMPLETED)
            await (answer if answer.done() else client)
        finally:
            for task in (answer, client):
                task.cancel()
            await asyncio.gather(answer, client, return_exceptions=True)

    async def _body_framing(self) -> list[tuple[bytes, bytes]]:
        """How the port learns where the body ends; HTTP/2 need not say its length."""
        headers = Headers(scope=self._scope)
        if "content-length" in headers:
            return []
        if self._scope["http_version"] == "2":
            self._first = await self._receive()
            has_body = self._first.get("body") or self._first.get("more_body", False)
        else:
            has_body = "transfer-encoding" in headers
        return [(b"Transfer-Encoding", b"chunked")] if has_body else []

    async def _send_body(self) -> None:
        """Passes the body on as far as the port takes it, and waits until the client is gone."""
        message = self._first or await self._receive()
        while message["type"] != "http.disconnect":
            has_more = message.get("more_body", False)
            is_taken = await self._pass_on(message.get("body", b""), is_last=not has_more)
            if not (is_taken and has_more):
                break
            message = await self._receive()
        while message["type"] != "http.disconnect":
            try:
                message = await self._receive()
            except ApiError:  # the rest of a body that nobody wants need not come
                await asyncio.sleep(LOOK_S)

    async def _pass_on(self, body: bytes, *, is_last: bool) -> bool:
        try:
            data = self._connection.send(h11.Data(data=body)) or b"" if body else b""
            if is_last:
                data += self._connection.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError:
            return False  # more or less than its length, or a port that has failed
        return await self._tunnel.write(data)

    async def _serve_answer(self) -> None:
        try:
            async with asyncio.timeout(HEAD_DEADLINE_S):
                head = await self._head()
            await self._send(
                {
                    "type": "http.response.start",
                    "status": head.status_code,
                    "headers": list(_response_headers(head)),
                }
            )
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    await self._send(
                        {"type": "http.response.body", "body": piece, "more_body": True}
                    )
        except TimeoutError:
            raise _bad_gateway("the port did not answer in time", status=504) from None
        except h11.RemoteProtocolError as exc:
            raise _bad_gateway("the port did not answer with HTTP", cause=str(exc)) from exc
        await self._send({"type": "http.response.body"})

    async def _head(self) -> h11.Response:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                _check_head(event)
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("it closed the connection without an answer")

    async def _pieces(self) -> AsyncGenerator[bytes]:
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def _event(self) -> object:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._tunnel.read())
        if event is h11.PAUSED:  # whoever waits for the next one waits for ever
            raise h11.RemoteProtocolError("it left HTTP")
        return event


def _check_head(head: h11.Response) -> None:
    """Raises RemoteProtocolError for what h11 takes and a client of ours must not be sent."""
    if head.status_code not in _STATUSES:
        raise h11.RemoteProtocolError(f"the status {head.status_code} does not exist")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in head.headers}:
        raise h11.RemoteProtocolError("it says the length of its body in two ways")


def _request_headers(scope: Scope) -> Iterator[tuple[bytes, bytes]]:
    """What the port sees of the client's headers: no credential of ours, no claim of others."""
    headers = Headers(scope=scope)
    public_host = headers.get("host", "")
    client = (scope.get("client") or ("unknown",))[0]
    came_through = headers.get("x-forwarded-for")
    yield b"Host", public_host.encode("latin-1")
    yield b"X-Forwarded-Host", public_host.encode("latin-1")
    yield b"X-Forwarded-For", ", ".join(filter(None, (came_through, client))).encode("latin-1")
    scheme = str({"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"]))
    yield b"X-Forwarded-Proto", (headers.get("x-forwarded-proto") or scheme).encode("latin-1")
    named = _named_by_connection(scope["headers"])
    for name, value in scope["headers"]:
        if name in _HOP_BY_HOP | _REPLACED | named or name.startswith(_OF_OTHER_PROXIES):
            continue
        if not name.startswith(b":"):
            yield name, value
    if cookies := _cookies_of_the_page(headers):
        yield b"Cookie", cookies.encode("latin-1")


def _cookies_of_the_page(headers: Headers) -> str:
    """The client's cookies without the preview session."""
    pairs = [pair.strip() for line in headers.getlist("cookie") for pair in line.split(";")]
    return "; ".join(pair for pair in pairs if pair.partition("=")[0] != SESSION_COOKIE)


def _named_by_connection(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """The headers that `Connection` names: they belong to that connection only."""
    values = [value for name, value in headers if name == b"connection"]
    return {part.strip().lower() for value in values for part in value.split(b",")}


def _response_headers(head: h11.Response) -> Iterator[tuple[bytes, bytes]]:
    named = _named_by_connection(list(head.headers))
    for name, value in head.headers:
        is_ours = name == b"set-cookie" and value.startswith(SESSION_COOKIE.encode())
        if name not in _HOP_BY_HOP | named | {b"date"} and not is_ours:
            yield name, value


def _bad_gateway(message: str, *, cause: str = "", status: int = 502) -> ApiError:
    return ApiError(
        "internal",
        message,
        cause=cause,
        remediation="Look at the server inside the sandbox.",
        status=status,
        connect=ConnectCode.UNAVAILABLE,
    )
