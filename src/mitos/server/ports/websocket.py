"""A client's WebSocket, carried to a server inside a sandbox."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, ProtocolError

from mitos.agent.tunnel import Tunnel
from mitos.wire.errors import ApiError, ConnectCode

__all__ = ["carry_websocket"]

HANDSHAKE_DEADLINE_S = 60.0
"""How long a program may take to accept a WebSocket."""

MAX_MESSAGE_BYTES = 16 << 20
"""A message is passed on whole: ASGI knows no parts of one."""

CLOSE_GONE, CLOSE_PROTOCOL, CLOSE_TOO_BIG = 1001, 1002, 1009
NO_STATUS = 1005
"""Stands for a close without a code; it is never sent."""

_REFUSALS = range(300, 600)
"""Statuses that say no; any other than these and 101 says nothing about a WebSocket."""

_HANDSHAKE = {b"host", b"sec-websocket-key", b"sec-websocket-version"} | {
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
}


async def carry_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    tunnel: Tunnel,
    path: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    """Serves the client's WebSocket from the port until either side closes it.

    Raises:
        ApiError: the port did not accept it and said nothing that could be passed on.
    """
    assert (await receive())["type"] == "websocket.connect"
    inner = _Inner(tunnel)
    request = Request(
        host=Headers(scope=scope).get("host", "localhost"),
        target=path.decode("latin-1"),
        subprotocols=list(scope.get("subprotocols", ())),
        extra_headers=[pair for pair in headers if pair[0].lower() not in _HANDSHAKE],
    )
    try:
        async with asyncio.timeout(HANDSHAKE_DEADLINE_S):
            answer = await inner.shake_hands(request)
    except (TimeoutError, ProtocolError) as exc:
        raise _not_accepted(str(exc)) from exc
    if isinstance(answer, RejectConnection):
        if answer.status_code not in _REFUSALS:
            raise _not_accepted(f"it answered with the status {answer.status_code}")
        await _deny(send, answer)
        return
    await send({"type": "websocket.accept", "subprotocol": answer.subprotocol})
    tasks = [
        asyncio.create_task(inner.feed(receive), name="websocket-in"),
        asyncio.create_task(inner.serve(send), name="websocket-out"),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _not_accepted(cause: str) -> ApiError:
    return ApiError(
        "internal",
        "the port did not accept the WebSocket",
        cause=cause,
        remediation="Look at the server inside the sandbox.",
        status=502,
        connect=ConnectCode.UNAVAILABLE,
    )


async def _deny(send: Send, answer: RejectConnection) -> None:
    start = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": []}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"the port refused\n"})


class _Inner:
    """The client's end of the WebSocket inside the sandbox."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._writing = asyncio.Lock()

    async def shake_hands(self, request: Request) -> AcceptConnection | RejectConnection:
        """Asks for the upgrade; what the port says to it.

        Raises:
            ProtocolError: it says nothing that is an answer.
        """
        await self._tell(request)
        while True:
            for event in self._connection.events():
                if isinstance(event, (AcceptConnection, RejectConnection)):
                    return event
            await self._take_in()

    async def feed(self, receive: Receive) -> None:
        """Passes the client's messages on until it closes."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or NO_STATUS
                await self._tell(CloseConnection(code=CLOSE_GONE if code == NO_STATUS else code))
                return
            text, data = message.get("text"), message.get("bytes")
            event: Event = TextMessage(text) if text is not None else BytesMessage(data or b"")
            if not await self._tell(event):
                return

    async def serve(self, send: Send) -> None:
        """Passes the port's messages on until it closes."""
        code, reason = CLOSE_GONE, ""
        try:
            code, reason = await self._serve_messages(send)
        except ProtocolError:
            code = CLOSE_PROTOCOL
        except OverflowError:
            code = CLOSE_TOO_BIG
        await send({"type": "websocket.close", "code": code, "reason": reason})

    async def _serve_messages(self, send: Send) -> tuple[int, str]:
        """Raises OverflowError for a message that is too long, ProtocolError for nonsense."""
        message = _Message()
        while True:
            for event in self._connection.events():
                match event:
                    case TextMessage() | BytesMessage():
                        message.add(event)
                        if event.message_finished:
                            await send(message.take())
                    case Ping():
                        await self._tell(event.response())
                    case CloseConnection():
                        code = int(event.code)
                        return (CLOSE_GONE if code == NO_STATUS else code), event.reason or ""
            if not await self._take_in():
                return CLOSE_GONE, ""

    async def _tell(self, event: Event) -> bool:
        """Sends one, whole; False when the port takes no more."""
        async with self._writing:
            try:
                data = self._connection.send(event)
            except LocalProtocolError:  # it has been closed meanwhile
                return False
            return await self._tunnel.write(data)

    async def _take_in(self) -> bool:
        """Waits for bytes from the port; False when it has gone.

        Raises:
            ProtocolError: they are no WebSocket's.
        """
        data = await self._tunnel.read()
        if not data and self._connection.state is not ConnectionState.OPEN:
            raise ProtocolError("it closed the connection without an answer")
        self._connection.receive_data(data or None)
        return bool(data)


class _Message:
    """A message that comes in parts."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_text = False

    def add(self, part: TextMessage | BytesMessage) -> None:
        """Takes in the next part.

        Raises:
            OverflowError: the message is too long.
        """
        self._size += len(part.data)
        if self._size > MAX_MESSAGE_BYTES:
            raise OverflowError
        self._is_text = isinstance(part, TextMessage)
        if isinstance(part, TextMessage):
            self._texts.append(part.data)
        else:
            self._pieces.append(bytes(part.data))

    def take(self) -> dict[str, object]:
        """The whole message, for the client; begins the next one."""
        sent: dict[str, object] = {"type": "websocket.send"}
        if self._is_text:
            sent["text"] = "".join(self._texts)
        else:
            sent["bytes"] = b"".join(self._pieces)
        self._texts, self._pieces, self._size = [], [], 0
        return sent
