"""Cleartext HTTP/2 (RFC 9113): each stream of a connection is one request of the application.

h2 keeps the protocol's state; this file moves bytes, and `stream.py` the messages of each request.
A client may send as much as the stream's window says, which grows when the application takes the
body: a request whose body nobody reads holds up neither the other streams nor the connection. An
answer is sent as far as the client's window and the transport take it, and the application waits
for both.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from starlette.types import Scope
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from mitos.server.http.deadline import DRAIN_DEADLINE_S, Deadline, WriteStall
from mitos.server.http.stream import Stream
from mitos.server.http.traffic import KEEP_ALIVE_S, MAX_HEAD_BYTES, Traffic

__all__ = ["Http2Connection"]

MAX_STREAMS = 128
"""Requests of one connection at the same time."""

STREAM_WINDOW_BYTES = 256 * 1024
"""Of one request's body, sent and not yet taken by the application."""

CONNECTION_WINDOW_BYTES = 8 << 20
"""The same of all requests of a connection."""

MAX_RESETS = 1000
"""Streams that a client may give up over a connection's life, beyond those it let end."""

MAX_REPLIES_BYTES = 1 << 20
"""Waiting to be sent to a client that asks (pings, settings) and does not read."""


class Http2Connection(asyncio.Protocol):
    """One connection.

    Args:
        traffic: what it belongs to.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self._streams: dict[int, Stream] = {}
        self._drained: dict[int, Deadline] = {}
        self._resets = 0
        self._is_stopping = False
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._idle = Deadline(KEEP_ALIVE_S, self._close)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._stalled = WriteStall(transport)
        self._addresses = get_remote_addr(transport), get_local_addr(transport)
        self._traffic.connections.add(self)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES)
        self._rest()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._traffic.connections.discard(self)
        self._traffic.note_busy(self)
        self._idle.stop()
        self._stalled.stop()
        self._is_writable.set()
        for stream_id in list(self._drained):
            self._end_drain(stream_id)
        for stream in list(self._streams.values()):
            stream.note_gone()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            for event in self._h2.receive_data(data):
                self._take(event)
                if self._transport.is_closing():
                    return
        except h2.exceptions.ProtocolError:
            self._close()
            return
        self.flush()
        if self._transport.get_write_buffer_size() > MAX_REPLIES_BYTES:
            self.abort()

    def pause_writing(self) -> None:
        self._is_writable.clear()
        self._stalled.start()

    def resume_writing(self) -> None:
        self._is_writable.set()
        self._stalled.stop()

    # What the traffic calls

    def shutdown(self) -> None:
        """Takes no more requests; the connection ends with the last one."""
        self._is_stopping = True
        if not self._streams:
            self._close()

    def abort(self) -> None:
        """Ends it at once."""
        self._transport.abort()

    def give_way(self) -> None:
        """Closes it at once, since others need the room."""
        self._close()
        if self._transport.get_write_buffer_size():
            self.abort()

    # What the streams call

    def flush(self) -> None:
        """Writes what h2 has to send."""
        if (data := self._h2.data_to_send()) and not self._transport.is_closing():
            self._transport.write(data)

    async def send_headers(
        self, stream_id: int, headers: list[tuple[bytes, bytes]], *, ends: bool = False
    ) -> None:
        """Sends a head or trailers."""
        await self._is_writable.wait()
        own = [] if ends else self._traffic.state.default_headers
        self._h2.send_headers(stream_id, [*headers, *own], end_stream=ends)
        self.flush()

    async def send_piece(self, stream_id: int, data: memoryview) -> int:
        """Sends what the windows take of the data; how much, 0 for none."""
        await self._is_writable.wait()
        window = self._h2.local_flow_control_window(stream_id)
        size = min(window, self._h2.max_outbound_frame_size, len(data))
        if size > 0:
            self._h2.send_data(stream_id, bytes(data[:size]))
            self.flush()
        return max(size, 0)

    def end_stream(self, stream_id: int) -> None:
        """Says that the answer is complete."""
        self._h2.end_stream(stream_id)
        self.flush()

    def note_taken(self, stream_id: int, size: int) -> None:
        """Lets the client send as much again as the application has taken."""
        if size and not self._transport.is_closing():
            try:
                self._h2.acknowledge_received_data(size, stream_id)
            except (h2.exceptions.ProtocolError, ValueError):
                return  # the stream or the connection has ended meanwhile
            self.flush()

    def close_stream(self, stream: Stream) -> None:
        """Forgets a stream whose application has returned; an answer without an end is reset."""
        if self._streams.pop(stream.id, None) is None:
            return
        self.note_taken(stream.id, stream.untaken)
        if not stream.is_answered:
            self._reset(stream.id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        else:
            self._resets = max(self._resets - 1, 0)
            if not stream.has_whole_body:
                self._drain(stream.id)
        if not self._streams:
            self._rest()
            if self._is_stopping:
                self._close()

    def _drain(self, stream_id: int) -> None:
        """Drops what still comes of a body, for a moment; then the client is told to stop.

        RFC 9113, section 8.1.
        """
        code = h2.errors.ErrorCodes.NO_ERROR
        due = Deadline(DRAIN_DEADLINE_S, partial(self._reset, stream_id, code))
        self._drained[stream_id] = due
        due.start()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        self._drained.pop(stream_id, None)
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the client has ended it
            self._h2.reset_stream(stream_id, code)
        self.flush()

    # What the client says

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self.note_taken(event.stream_id, event.flow_controlled_length)
                else:
                    stream.note_body(event.data, event.flow_controlled_length)
            case h2.events.StreamEnded():
                self._end_drain(event.stream_id)
                if stream := self._streams.get(event.stream_id):
                    stream.note_body_end()
            case h2.events.StreamReset():
                self._end_drain(event.stream_id)
                self._note_reset(event.stream_id)
            case h2.events.WindowUpdated():
                self._note_window(event.stream_id)
            case h2.events.RemoteSettingsChanged():
                self._note_window(0)
            case h2.events.ConnectionTerminated():
                self._transport.close()

    def _begin(self, event: h2.events.RequestReceived) -> None:
        if self._is_stopping:
            self._h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._idle.stop()
        self._traffic.note_busy(self)
        stream = Stream(self, event.stream_id, self._scope(event.headers or []))
        self._streams[stream.id] = stream
        task = asyncio.create_task(stream.run(self._traffic.app), name="http2-request")
        self._traffic.state.tasks.add(task)
        task.add_done_callback(self._traffic.state.tasks.discard)

    def _scope(self, headers: list[Any]) -> Scope:
        special = {bytes(name): bytes(value) for name, value in headers if name[:1] == b":"}
        raw_path, _, query = special.get(b":path", b"").partition(b"?")
        plain = [(bytes(name), bytes(value)) for name, value in headers if name[:1] != b":"]
        if b":authority" in special:
            plain = [pair for pair in plain if pair[0] != b"host"]
            plain.insert(0, (b"host", special[b":authority"]))
        client, server = self._addresses
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": special[b":method"].decode("latin-1"),
            "scheme": "http",
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": plain,
            "client": client,
            "server": server,
            "extensions": {"http.response.trailers": {}},
        }

    def _end_drain(self, stream_id: int) -> None:
        if due := self._drained.pop(stream_id, None):
            due.stop()

    def _note_window(self, stream_id: int) -> None:
        """A stream's window has grown; with 0 that of all."""
        for stream in list(self._streams.values()):
            if stream_id in (0, stream.id):
                stream.note_window()

    def _note_reset(self, stream_id: int) -> None:
        if stream := self._streams.get(stream_id):
            stream.note_gone()
        self._resets += 1
        if self._resets > MAX_RESETS:
            self._close(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    # Its own life

    def _rest(self) -> None:
        """It waits for a request from now on."""
        if not self._transport.is_closing():
            self._traffic.note_waiting(self)
            self._idle.start()

    def _close(self, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        if self._transport.is_closing():
            return
        self._traffic.note_busy(self)
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it is closed already
            self._h2.close_connection(code)
        self.flush()
        self._transport.close()
