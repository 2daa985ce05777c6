"""Terminals over WebSocket: the current route of Connect envelopes, and the older text route.

Both drive the same command of a sandbox; they differ in how a message is written. Closing the
socket kills the session's processes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from protobuf import Oneof
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mitos.agent.command import Command
from mitos.server.codec import LenientJsonCodec
from mitos.server.errors import envelope_response
from mitos.server.runtime.execution import Timeouts, exec_request
from mitos.server.runtime.messages import exec_messages
from mitos.server.settings import ServerSettings
from mitos.server.tenant import Tenants
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.errors import ApiError
from mitos.wire.ids import is_valid_id

__all__ = ["routes"]

MESSAGE_LIMIT_BYTES = 1 << 20
"""Of one message to a terminal."""

MAX_DIMENSION = 100_000
DEFAULT_COLS, DEFAULT_ROWS = 80, 24
OPEN_DEADLINE_S = 30.0
"""How long a client may take to send its first message."""

CLOSE_NORMAL, CLOSE_UNSUPPORTED, CLOSE_POLICY, CLOSE_INTERNAL = 1000, 1003, 1008, 1011
CLOSE_RESTART = 1012
"""The sandbox or its server is away for a while."""

_END_STREAM = 2


@dataclass(frozen=True, slots=True)
class _Input:
    """What a client asks of the running session; exactly one member is set."""

    data: bytes | None = None
    size: tuple[int, int] | None = None
    close: bool = False


class _Dialect(Protocol):
    """How messages are written on one of the routes."""

    subprotocol: str
    tells_full_in_session: bool
    """A sandbox without a free stream is told of in an exit message, not by a refusal."""

    async def open(self, websocket: WebSocket) -> pb.ExecOpen: ...

    def parse(self, message: dict[str, object]) -> _Input | None: ...

    async def output(self, websocket: WebSocket, message: pb.ExecResponse) -> None: ...

    async def exit(self, websocket: WebSocket, ended: pb.ExecExit) -> None: ...


class _ProtocolError(Exception):
    """The client sent what the route does not allow."""


class _Envelopes:
    """`GET /sandbox.v1.Sandbox/Exec`: one Connect envelope of proto-JSON in each binary message."""

    subprotocol = "connect.sandbox.v1"
    tells_full_in_session = True

    def __init__(self) -> None:
        self._codec = LenientJsonCodec()

    async def open(self, websocket: WebSocket) -> pb.ExecOpen:
        message = self._decode(dict(await websocket.receive()))
        if message is None or message.msg is None or message.msg.field != "open":
            raise _ProtocolError("the first message must be 'open'")
        return message.msg.value

    def parse(self, message: dict[str, object]) -> _Input | None:
        request = self._decode(message)
        match request.msg if request else None:
            case Oneof(field="stdin", value=bytes(data)):
                return _Input(data=data)
            case Oneof(field="resize", value=pb.WindowSize() as size):
                return _Input(size=(size.cols or DEFAULT_COLS, size.rows or DEFAULT_ROWS))
            case Oneof(field="stdin_close", value=True):
                return _Input(close=True)
        return None

    async def output(self, websocket: WebSocket, message: pb.ExecResponse) -> None:
        await websocket.send_bytes(_envelope(0, self._codec.encode(message)))

    async def exit(self, websocket: WebSocket, ended: pb.ExecExit) -> None:
        message = self._codec.encode(
            pb.ExecResponse(msg=Oneof[Literal["exit"], pb.ExecExit]("exit", ended))
        )
        await websocket.send_bytes(_envelope(_END_STREAM, message))

    def _decode(self, message: dict[str, object]) -> pb.ExecRequest | None:
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        data = message.get("bytes")
        if not isinstance(data, bytes) or len(data) < 5 or data[0] & 1:
            raise _ProtocolError("a message must be one uncompressed envelope")
        if len(data) - 5 != int.from_bytes(data[1:5], "big") or len(data) > MESSAGE_LIMIT_BYTES:
            raise _ProtocolError("an envelope's length must be its payload's")
        try:
            decoded = self._codec.decode(data[5:], pb.ExecRequest)
        except Exception as exc:
            raise _ProtocolError("an envelope's payload is not an ExecRequest") from exc
        assert isinstance(decoded, pb.ExecRequest)
        return decoded


class _TextMessages:
    """`GET /v1/pty`: one JSON object in each text message; always a shell."""

    subprotocol = "mitos.pty.v1"
    tells_full_in_session = False

    async def open(self, websocket: WebSocket) -> pb.ExecOpen:
        query = websocket.query_params
        cols, rows = _size(query.get("cols"), query.get("rows"))
        return pb.ExecOpen(pty=pb.PtyOptions(size=pb.WindowSize(cols=cols, rows=rows)))

    def parse(self, message: dict[str, object]) -> _Input | None:
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        try:
            body = json.loads(str(message.get("text")))
            match body:
                case {"kind": "input", "data": str(data)}:
                    return _Input(data=base64.b64decode(data))
                case {"kind": "resize", "cols": int(cols), "rows": int(rows)}:
                    return _Input(size=_size(str(cols), str(rows)))
        except (ValueError, RecursionError, binascii.Error):
            pass
        return None

    async def output(self, websocket: WebSocket, message: pb.ExecResponse) -> None:
        assert message.msg is not None
        assert isinstance(message.msg.value, bytes)
        data = base64.b64encode(message.msg.value).decode()
        await websocket.send_text(json.dumps({"kind": "output", "data": data}))

    async def exit(self, websocket: WebSocket, ended: pb.ExecExit) -> None:
        body: dict[str, object] = {"kind": "exit"}
        if ended.exit_code:
            body["exit_code"] = ended.exit_code
        if ended.error:
            body["error"] = ended.error
        await websocket.send_text(json.dumps(body))


def routes(tenants: Tenants, settings: ServerSettings) -> list[WebSocketRoute]:
    """Both terminal routes."""

    async def current(websocket: WebSocket) -> None:
        await _serve(websocket, _Envelopes(), tenants, settings)

    async def legacy(websocket: WebSocket) -> None:
        await _serve(websocket, _TextMessages(), tenants, settings)

    return [
        WebSocketRoute("/sandbox.v1.Sandbox/Exec", current),
        WebSocketRoute("/v1/pty", legacy),
    ]


async def _serve(
    websocket: WebSocket, dialect: _Dialect, tenants: Tenants, settings: ServerSettings
) -> None:
    tenant = tenants.current()
    with contextlib.ExitStack() as slot:
        try:
            sandbox_id = websocket.query_params.get("sandbox") or ""
            if not is_valid_id(sandbox_id):
                raise ApiError("invalid_input", "the parameter 'sandbox' is missing or no id")
            if dialect.subprotocol not in websocket.scope["subprotocols"]:
                raise ApiError(
                    "invalid_input",
                    "the WebSocket does not offer this route's subprotocol",
                    remediation=f"Send Sec-WebSocket-Protocol: {dialect.subprotocol}.",
                )
            agent = slot.enter_context(tenant.stream(sandbox_id))
        except ApiError as exc:
            await _refuse(websocket, dialect, exc)
            return
        await websocket.accept(subprotocol=dialect.subprotocol)
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                opened = await dialect.open(websocket)
            timeouts = Timeouts.of(settings, tenant)
            wanted = exec_request(opened, sandbox_id, timeouts, stdin=True)
            async with agent.exec(wanted) as command:
                await _session(websocket, dialect, command)
        except WebSocketDisconnect:
            pass
        except (_ProtocolError, TimeoutError) as exc:
            await _fail(websocket, dialect, str(exc) or "no first message", CLOSE_UNSUPPORTED)
        except ApiError as exc:
            close_code = CLOSE_RESTART if exc.status == 503 else CLOSE_INTERNAL
            await _fail(websocket, dialect, exc.message, close_code)


async def _refuse(websocket: WebSocket, dialect: _Dialect, error: ApiError) -> None:
    if error.code == "too_many_streams" and dialect.tells_full_in_session:
        await websocket.accept(subprotocol=dialect.subprotocol)
        await _fail(websocket, dialect, error.message, CLOSE_POLICY)
    else:
        await websocket.send_denial_response(envelope_response(error))


async def _session(websocket: WebSocket, dialect: _Dialect, command: Command) -> None:
    """Carries input and output until the command ends or the client goes away."""
    tasks = [
        asyncio.create_task(_send_output(websocket, dialect, command), name="pty-output"),
        asyncio.create_task(_take_input(websocket, dialect, command), name="pty-input"),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_output(websocket: WebSocket, dialect: _Dialect, command: Command) -> None:
    async with aclosing(exec_messages(command)) as messages:
        async for message in messages:
            if message.msg is not None and isinstance(message.msg.value, pb.ExecExit):
                await dialect.exit(websocket, message.msg.value)
            else:
                await dialect.output(websocket, message)
    await websocket.close(CLOSE_NORMAL)


async def _take_input(websocket: WebSocket, dialect: _Dialect, command: Command) -> None:
    while True:
        wanted = dialect.parse(dict(await websocket.receive()))
        if wanted is None:
            continue
        if wanted.data is not None:
            await command.write(wanted.data)
        elif wanted.size is not None:
            await command.resize(*wanted.size)
        else:
            await command.close_input()


async def _fail(websocket: WebSocket, dialect: _Dialect, reason: str, close_code: int) -> None:
    """Says why the session ends: in its exit message, then in the close code."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await dialect.exit(websocket, pb.ExecExit(exit_code=1, error=reason))
        await websocket.close(close_code)


def _envelope(flags: int, payload: bytes) -> bytes:
    return bytes([flags]) + len(payload).to_bytes(4, "big") + payload


def _size(cols: str | None, rows: str | None) -> tuple[int, int]:
    return _dimension(cols, DEFAULT_COLS), _dimension(rows, DEFAULT_ROWS)


def _dimension(text: str | None, default: int) -> int:
    """A count of columns or rows; what is missing or out of range is the default."""
    is_number = text and len(text) <= len(str(MAX_DIMENSION)) and text.isascii() and text.isdigit()
    number = int(text) if text and is_number else 0
    return number if 0 < number <= MAX_DIMENSION else default
