"""One stream of an HTTP/2 connection, as the application sees it: a request and its answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import h2.exceptions
from starlette.types import ASGIApp, Message, Scope

from mitos.server.http.deadline import WRITE_STALL_S

__all__ = ["Stream"]

_log = logging.getLogger(__name__)

_OF_HTTP_1 = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


class Connection(Protocol):
    """What a stream asks of its connection."""

    async def send_headers(
        self, stream_id: int, headers: list[tuple[bytes, bytes]], *, ends: bool = False
    ) -> None:
        """Sends a head or trailers."""

    async def send_piece(self, stream_id: int, data: memoryview) -> int:
        """Sends what the windows take of the data; how much, 0 for none."""
        raise NotImplementedError

    def end_stream(self, stream_id: int) -> None:
        """Says that the answer is complete."""

    def note_taken(self, stream_id: int, size: int) -> None:
        """Lets the client send as much again as the application has taken."""

    def close_stream(self, stream: Stream) -> None:
        """Forgets a stream whose application has returned; an answer without an end is reset."""


class Stream:
    """One request.

    Args:
        connection: it came on.
        stream_id: its number there.
        scope: of the request.

    Attributes:
        id: its number.
        has_whole_body: nothing of its body is to come.
        is_answered: the whole answer has been sent.
        untaken: bytes of its body that have come and that the application has not taken.
    """

    def __init__(self, connection: Connection, stream_id: int, scope: Scope) -> None:
        self.id = stream_id
        self.has_whole_body = False
        self.is_answered = False
        self.untaken = 0
        self._connection = connection
        self._scope = scope
        self._body = bytearray()
        self._has_news = asyncio.Event()
        self._has_window = asyncio.Event()
        self._is_gone = False
        self._has_begun = False
        self._has_trailers = False
        self._has_told_end = False

    async def run(self, app: ASGIApp) -> None:
        """Serves the request."""
        try:
            if not self._is_gone:  # a client may give a request up at once
                await app(self._scope, self.receive, self.send)
        except Exception:  # noqa: BLE001  whatever fails, the stream ends
            _log.exception("unexpected error")
        finally:
            await self._end_anyhow()
            self._connection.close_stream(self)

    async def receive(self) -> Message:
        """The next message for the application."""
        while not self._is_gone and not self.is_answered:
            if self._body:
                data, size = bytes(self._body), self.untaken
                self._body.clear()
                self.untaken = 0
                self._connection.note_taken(self.id, size)
                return self._request(data, more=not self.has_whole_body)
            if self.has_whole_body and not self._has_told_end:
                return self._request(b"", more=False)
            self._has_news.clear()
            await self._has_news.wait()
        return {"type": "http.disconnect"}

    def _request(self, data: bytes, *, more: bool) -> Message:
        self._has_told_end = not more
        return {"type": "http.request", "body": data, "more_body": more}

    async def send(self, message: Message) -> None:
        """Sends a message of the application.

        Raises:
            RuntimeError: it is not what may follow.
        """
        if self._is_gone or self.is_answered:
            return
        try:
            await self._send(message)
        except h2.exceptions.ProtocolError:
            self.note_gone()  # the client has ended the stream or the connection meanwhile

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self._has_begun:
            self._has_begun = True
            self._has_trailers = message.get("trailers", False)
            status = (b":status", b"%d" % message["status"])
            headers = _sendable(message.get("headers", ()))
            await self._connection.send_headers(self.id, [status, *headers])
        elif kind == "http.response.body" and self._has_begun:
            if self._scope["method"] != "HEAD":
                await self._send_body(message.get("body", b""))
            if not message.get("more_body", False) and not self._has_trailers:
                self._end()
        elif kind == "http.response.trailers" and self._has_trailers:
            if not self._is_gone:
                headers = _sendable(message.get("headers", ()))
                await self._connection.send_headers(self.id, headers, ends=True)
            self.is_answered = True
            self._has_news.set()
        else:
            raise RuntimeError(f"{kind} cannot be sent now")

    async def _send_body(self, body: bytes) -> None:
        rest = memoryview(body)
        while rest and not self._is_gone:
            self._has_window.clear()
            if sent := await self._connection.send_piece(self.id, rest):
                rest = rest[sent:]
            elif not self._is_gone:
                await self._wait_for_window()

    async def _wait_for_window(self) -> None:
        try:
            async with asyncio.timeout(WRITE_STALL_S):
                await self._has_window.wait()
        except TimeoutError:
            self.note_gone()

    def _end(self) -> None:
        if not self._is_gone:
            self._connection.end_stream(self.id)
        self.is_answered = True
        self._has_news.set()

    async def _end_anyhow(self) -> None:
        """Answers for an application that has returned without an answer."""
        if not self._has_begun:
            await self.send({"type": "http.response.start", "status": 500, "headers": []})
            await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    def note_body(self, data: bytes, size: int) -> None:
        """A piece of the body has come.

        Args:
            data: its bytes.
            size: what it costs of the windows, padding included.
        """
        if not data:
            self._connection.note_taken(self.id, size)
            return
        self._body += data
        self.untaken += size
        self._has_news.set()

    def note_body_end(self) -> None:
        """The body is complete."""
        self.has_whole_body = True
        self._has_news.set()

    def note_window(self) -> None:
        """The client may take more."""
        self._has_window.set()

    def note_gone(self) -> None:
        """The client has given the request up, or is gone."""
        self._is_gone = True
        self._has_news.set()
        self._has_window.set()


def _sendable(headers: Any) -> list[tuple[bytes, bytes]]:
    """Names in lower case, without those that belong to a connection of HTTP/1.1."""
    pairs = ((bytes(name).lower(), bytes(value)) for name, value in headers)
    return [(name, value.strip()) for name, value in pairs if name not in _OF_HTTP_1]
