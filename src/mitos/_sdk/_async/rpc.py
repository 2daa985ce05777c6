"""Runtime calls of a sandbox over HTTP: Connect's unary and streaming form, in JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpx

from mitos._sdk import answer, failure
from mitos._sdk._async.http import AsyncHttp
from mitos._sdk.framing import FrameReader, encode_frame
from mitos.errors import AgentRunError

__all__ = ["AsyncRpc"]

PATH = "/sandbox.v1.Sandbox/"


class AsyncRpc:
    """The runtime calls of one sandbox.

    Args:
        http: the server that has it.
        sandbox_id: its id, which changes when it takes its parent's place.
    """

    def __init__(self, http: AsyncHttp, sandbox_id: str) -> None:
        self.http = http
        self.sandbox_id = sandbox_id

    async def unary(self, method: str, message: dict[str, Any]) -> dict[str, Any]:
        """A unary call.

        Raises:
            AgentRunError: the server's error, or no answer.
        """
        headers = {"X-Sandbox-Id": self.sandbox_id}
        response = await self.http.request("POST", PATH + method, headers, message)
        if not response.is_success:
            raise failure.from_runtime(response.status_code, response.content, self.http.api_key)
        found = answer.content(response.content, self.http.api_key)
        return answer.members(found, self.http.api_key)

    async def stream(
        self,
        method: str,
        messages: Iterable[dict[str, Any]],
        take: Callable[[dict[str, Any]], object],
        *,
        read_timeout_s: float,
        headers: Mapping[str, str] | None = None,
        take_response: Callable[[httpx.Response], None] | None = None,
    ) -> None:
        """A streaming call; `take` gets each message of the answer as it comes.

        It is sent once, whatever happens: the server may have begun. When `take` raises, the
        connection is closed, which ends the call on the server.

        Args:
            method: the call's name.
            messages: a list goes out in one; anything else is taken piece by piece as the server
                reads.
            take: gets each message.
            read_timeout_s: the longest wait for the next message.
            headers: sent beside the usual ones.
            take_response: gets a good answer first, before anything of it is read.

        Raises:
            AgentRunError: the server's error, at whatever point of the stream it comes;
                `truncated_stream` when the stream does not come to its end.
        """
        found = self.messages(
            method,
            messages,
            read_timeout_s=read_timeout_s,
            headers=headers,
            take_response=take_response,
        )
        async with aclosing(found) as answers:
            async for message in answers:
                take(message)

    async def messages(
        self,
        method: str,
        messages: Iterable[dict[str, Any]],
        *,
        read_timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        take_response: Callable[[httpx.Response], None] | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """The same, as the messages themselves; closing the generator ends the call."""
        whole = b"".join(map(encode_frame, messages)) if isinstance(messages, list) else None
        response = await self.http.open(
            PATH + method,
            {
                "Content-Type": "application/connect+json",
                "X-Sandbox-Id": self.sandbox_id,
                **(headers or {}),
            },
            _frames(messages) if whole is None else whole,
            read_timeout_s=read_timeout_s,
        )
        try:
            if take_response is not None and response.is_success:
                take_response(response)
            async with aclosing(self._receive(response, method)) as found:
                async for message in found:
                    yield message
        finally:
            await response.aclose()

    async def _receive(
        self, response: httpx.Response, method: str
    ) -> AsyncGenerator[dict[str, Any]]:
        if not response.is_success or response.headers.get("content-type", "").startswith("text/"):
            with self.http.translated():
                body = await response.aread()
            if response.is_success:
                raise failure.invalid_response(body, self.http.api_key)
            raise failure.from_runtime(response.status_code, body, self.http.api_key)
        reader = FrameReader()
        body_chunks = cast("AsyncGenerator[bytes]", response.aiter_bytes())
        async with aclosing(body_chunks) as chunks:
            # Up to the end of the body, so that the connection can be used again. Nothing may
            # come after the end of the stream; if something does, the rest is not waited for.
            while (chunk := await self._next(chunks, reader)) and not reader.ended:
                for message in reader.feed(chunk):
                    yield message
        if reader.error is not None:
            raise failure.from_connect(reader.error, self.http.api_key)
        if not reader.ended:
            raise failure.truncated(method)

    async def _next(self, chunks: AsyncGenerator[bytes], reader: FrameReader) -> bytes:
        """The next piece of a body; empty at its end, and for what breaks after the last frame."""
        try:
            with self.http.translated():
                return await anext(chunks, b"")
        except AgentRunError:
            if reader.ended:
                return b""
            raise


async def _frames(messages: Iterable[dict[str, Any]]) -> AsyncGenerator[bytes]:
    for message in messages:
        yield encode_frame(message)
