"""The proxy that programs in a sandbox talk to: HTTP (CONNECT and plain) and SOCKS5 on one port.

The first byte tells them apart. All that comes from inside is hostile: heads are bounded, h11
parses them, every step has a deadline. A plain HTTP request is carried alone: both sides close
after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Protocol
from urllib.parse import urlsplit

import h11

from mitos.egress.policy import Address, DeniedError, Policy, parse_host

__all__ = ["Pipe", "Proxy"]

_log = logging.getLogger(__name__)

HEAD_DEADLINE_S = 30.0
RESOLVE_DEADLINE_S = 10.0
CONNECT_DEADLINE_S = 10.0
IDLE_DEADLINE_S = 600.0
"""How long a connection may stand without a byte in either direction."""
LINGER_S = 5.0
"""How long a program may take to read an answer that ends its connection."""

MAX_HEAD_BYTES = 64 * 1024
MAX_ADDRESSES = 4
MAX_LOGGED_DENIALS = 100
READ_BYTES = 64 * 1024

_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"),
    *(b"proxy-connection", b"trailer", b"transfer-encoding", b"upgrade", b"host"),
}
_SOCKS_OK, _SOCKS_FAILED, _SOCKS_DENIED, _SOCKS_UNREACHABLE = 0, 1, 2, 4
_SOCKS_BAD_COMMAND, _SOCKS_BAD_ADDRESS = 7, 8
_REMEDY = "Allow it in the template's network posture: allow_domains (host:port) or allow_cidrs."


class Pipe(Protocol):
    """A connection of a program inside."""

    async def read(self) -> bytes:
        """The next bytes, or b"" when no more come."""

    async def write(self, data: bytes) -> bool:
        """Sends bytes; False when the program is gone."""

    async def write_eof(self) -> None:
        """Says that nothing more comes."""

    async def wait_closed(self) -> None:
        """Waits until the program has taken everything and ended its side."""


class _UnreachableError(Exception):
    """The destination is allowed and does not answer."""


class _BadRequestError(Exception):
    """What came is neither HTTP for a proxy nor SOCKS5."""


class Proxy:
    """Serves the connections of one sandbox.

    Args:
        policy: what may pass.
        sandbox_id: for the log.
    """

    def __init__(self, policy: Policy, sandbox_id: str) -> None:
        self._policy = policy
        self._sandbox_id = sandbox_id
        self.denials = 0

    async def serve(self, pipe: Pipe) -> None:
        """Serves one connection to its end. Failures of either side end it and are not raised."""
        inside = _Inside(pipe)
        with contextlib.suppress(TimeoutError, OSError, _BadRequestError):
            async with asyncio.timeout(HEAD_DEADLINE_S):
                first = await inside.read_exactly(1)
            inside.unread(first)
            if first == b"\x05":
                await self._serve_socks(inside)
            else:
                await self._serve_http(inside)

    async def _connect(
        self, text: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            host = parse_host(text)
            self._policy.check_name(host, port)
            addresses = [host] if not isinstance(host, str) else await _resolve(host)
            allowed = self._allowed(addresses, host, port)
        except DeniedError as exc:
            self.denials += 1
            if self.denials <= MAX_LOGGED_DENIALS:
                shown = text[:256]
                _log.info(
                    "sandbox %s: egress to %r port %d denied: %s",
                    self._sandbox_id,
                    shown,
                    port,
                    exc,
                )
            raise
        for address in allowed[:MAX_ADDRESSES]:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_DEADLINE_S):
                    return await asyncio.open_connection(str(address), port)
        raise _UnreachableError("the destination does not answer")

    def _allowed(self, addresses: list[Address], host: str | Address, port: int) -> list[Address]:
        allowed, denied = [], DeniedError("the name has no address")
        for address in addresses:
            try:
                self._policy.check_address(address, host, port)
                allowed.append(address)
            except DeniedError as exc:
                denied = exc
        if not allowed:
            raise denied
        return allowed

    # HTTP

    async def _serve_http(self, inside: _Inside) -> None:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            async with asyncio.timeout(HEAD_DEADLINE_S):
                request = await _next_event(parser, inside)
            if not isinstance(request, h11.Request):
                return
            if request.method == b"CONNECT":
                await self._serve_connect(parser, request, inside)
            else:
                await self._serve_plain(parser, request, inside)
        except DeniedError as exc:
            await inside.refuse(403, f"mitos: egress denied: {exc}. {_REMEDY}")
        except _UnreachableError as exc:
            await inside.refuse(502, f"mitos: {exc}")
        except (h11.RemoteProtocolError, _BadRequestError) as exc:
            await inside.refuse(400, f"mitos: not a request for a proxy: {exc}")

    async def _serve_connect(
        self, parser: h11.Connection, request: h11.Request, inside: _Inside
    ) -> None:
        host, port = _authority(request.target.decode("ascii"), None)
        reader, writer = await self._connect(host, port)
        async with _closing(writer):
            parser.next_event()
            inside.unread(parser.trailing_data[0])
            await inside.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _carry(inside, reader, writer)

    async def _serve_plain(
        self, parser: h11.Connection, request: h11.Request, inside: _Inside
    ) -> None:
        host, port, upstream_request = _rewritten(request)
        reader, writer = await self._connect(host, port)
        async with _closing(writer):
            upstream = h11.Connection(h11.CLIENT)
            writer.write(upstream.send(upstream_request) or b"")

            async def send_body() -> None:
                while True:
                    event = await _next_event(parser, inside)
                    if not isinstance(event, (h11.Data, h11.EndOfMessage)):
                        return
                    writer.write(upstream.send(event) or b"")
                    await writer.drain()
                    if isinstance(event, h11.EndOfMessage):
                        return

            await _both(send_body, reader, inside)

    # SOCKS5

    async def _serve_socks(self, inside: _Inside) -> None:
        async with asyncio.timeout(HEAD_DEADLINE_S):
            _, count = await inside.read_exactly(2)
            if 0 not in await inside.read_exactly(count):
                await inside.write(b"\x05\xff")
                await inside.finish()
                return
            await inside.write(b"\x05\x00")
            version, command, _, kind = await inside.read_exactly(4)
            host = await _socks_host(inside, kind)
            port = int.from_bytes(await inside.read_exactly(2), "big") if host else 0
        if version != 5 or command != 1 or not host or not port:
            bad_command = version != 5 or command != 1
            await inside.refuse_socks(_SOCKS_BAD_COMMAND if bad_command else _SOCKS_BAD_ADDRESS)
            return
        try:
            reader, writer = await self._connect(host, port)
        except DeniedError:
            await inside.refuse_socks(_SOCKS_DENIED)
        except _UnreachableError:
            await inside.refuse_socks(_SOCKS_UNREACHABLE)
        else:
            async with _closing(writer):
                await inside.write(_socks_answer(_SOCKS_OK))
                await _carry(inside, reader, writer)


class _Inside:
    """A program's connection, with bytes that were read and not used yet."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._unread = b""
        self.last_read = time.monotonic()

    def unread(self, data: bytes) -> None:
        self._unread = data + self._unread

    async def read(self) -> bytes:
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        data = await self._pipe.read()
        self.last_read = time.monotonic()
        return data

    async def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (chunk := await self.read()):
                raise _BadRequestError("the connection ended early")
            data += chunk
        self.unread(data[size:])
        return data[:size]

    async def write(self, data: bytes) -> None:
        if not await self._pipe.write(data):
            raise ConnectionResetError("the program inside closed its connection")

    async def write_eof(self) -> None:
        await self._pipe.write_eof()

    async def finish(self) -> None:
        """Ends the output and lets the program read it; what it still sends is dropped."""
        await self._pipe.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._pipe.wait_closed()

    async def refuse(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        await self.write(head.encode() + body)
        await self.finish()

    async def refuse_socks(self, reply: int) -> None:
        await self.write(_socks_answer(reply))
        await self.finish()


def _socks_answer(reply: int) -> bytes:
    return bytes([5, reply, 0, 1]) + bytes(6)


async def _socks_host(inside: _Inside, kind: int) -> str:
    """The destination, or nothing for a kind of address that does not exist."""
    if kind == 1:
        return str(ipaddress.IPv4Address(await inside.read_exactly(4)))
    if kind == 4:
        return str(ipaddress.IPv6Address(await inside.read_exactly(16)))
    if kind == 3:
        size = (await inside.read_exactly(1))[0]
        return (await inside.read_exactly(size)).decode("ascii", "replace")
    return ""


async def _next_event(parser: h11.Connection, inside: _Inside) -> object:
    while (event := parser.next_event()) is h11.NEED_DATA:
        parser.receive_data(await inside.read())
    return event


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if default_port is not None and (not colon or port.endswith("]")):
        return text, default_port
    if not (host and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise _BadRequestError("the target must be host:port")
    return host, int(port)


def _rewritten(request: h11.Request) -> tuple[str, int, h11.Request]:
    """The destination of an absolute-form request, and the request as the origin gets it."""
    try:
        url = urlsplit(request.target.decode("ascii"))
    except ValueError as exc:
        raise _BadRequestError("the URL cannot be read") from exc
    if url.scheme != "http" or not url.netloc or "@" in url.netloc:
        raise _BadRequestError("the target must be an http:// URL without credentials")
    host, port = _authority(url.netloc, 80)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    named = {
        token.strip().lower()
        for name, value in request.headers
        if name == b"connection"
        for token in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named
    headers = [(name, value) for name, value in request.headers if name not in dropped]
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"transfer-encoding", b"chunked"))
    headers += [(b"host", url.netloc.encode()), (b"connection", b"close")]
    return host, port, h11.Request(method=request.method, target=target, headers=headers)


async def _resolve(name: str) -> list[Address]:
    try:
        async with asyncio.timeout(RESOLVE_DEADLINE_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                name, None, type=socket.SOCK_STREAM
            )
        return [ipaddress.ip_address(entry[4][0]) for entry in found]
    except (OSError, TimeoutError, ValueError, UnicodeError) as exc:
        raise _UnreachableError("the name cannot be resolved") from exc


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def _carry(
    inside: _Inside, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def send() -> None:
        while data := await inside.read():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    await _both(send, reader, inside)


async def _read(reader: asyncio.StreamReader, inside: _Inside) -> bytes:
    """What the destination says next; it may be silent for as long as the program is not."""
    while True:
        try:
            async with asyncio.timeout(IDLE_DEADLINE_S):
                return await reader.read(READ_BYTES)
        except TimeoutError:
            if time.monotonic() - inside.last_read >= IDLE_DEADLINE_S:
                raise


async def _both(
    send: Callable[[], Coroutine[None, None, None]], reader: asyncio.StreamReader, inside: _Inside
) -> None:
    """Runs `send` beside carrying what the destination says; ends when that is all said."""
    sender = asyncio.create_task(send(), name="egress-out")
    try:
        while data := await _read(reader, inside):
            async with asyncio.timeout(IDLE_DEADLINE_S):
                await inside.write(data)
        await inside.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await sender
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
    await inside.finish()
