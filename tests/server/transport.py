"""Runtime calls in each form of the wire: HTTP/1.1 and HTTP/2, JSON and protobuf."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from protobuf import Message

from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from tests.server.calling import COMPRESSED, END_STREAM, SERVICE, envelope
from tests.server.serving import DEADLINE_S, Server

__all__ = ["SHAPES", "TRANSPORTS", "Transport", "WireError"]

SHAPES: dict[str, tuple[type[Message], type[Message], bool]] = {
    "Exec": (pb.ExecRequest, pb.ExecResponse, True),
    "ExecStream": (pb.ExecStreamRequest, pb.ExecResponse, True),
    "ReadFile": (pb.ReadFileRequest, pb.Chunk, True),
    "WriteFile": (pb.WriteFileRequest, pb.WriteFileResult, True),
    "List": (pb.ListRequest, pb.ListResponse, False),
    "Stat": (pb.StatRequest, pb.FileInfo, False),
    "Archive": (pb.ArchiveRequest, pb.Chunk, True),
    "Watch": (pb.WatchRequest, pb.FsEvent, True),
    "Processes": (pb.ProcessesRequest, pb.ProcessList, False),
    "Signal": (pb.SignalRequest, pb.SignalResponse, False),
    "PortForward": (pb.Frame, pb.Frame, True),
    "Fork": (pb.ForkRequest, pb.Operation, False),
    "Checkpoint": (pb.CheckpointRequest, pb.Revision, False),
    "ExtendLifetime": (pb.ExtendRequest, pb.Lease, False),
    "Budget": (pb.BudgetRequest, pb.BudgetStatus, False),
    "Vitals": (pb.VitalsRequest, pb.GuestVitals, True),
    "RunCode": (pb.RunCodeRequest, pb.RunCodeResponse, True),
    "RunCodeStream": (pb.RunCodeStreamRequest, pb.RunCodeResponse, True),
    "Mkdir": (pb.MkdirRequest, pb.MkdirResponse, False),
    "Remove": (pb.RemoveRequest, pb.RemoveResponse, False),
    "Upload": (pb.UploadRequest, pb.UploadResult, True),
}
"""Request, response and whether the call streams, as in section 1.1 of the contract."""


class WireError(Exception):
    """The Connect error object that ended a call."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(json.dumps(body))
        self.body = body


@dataclass(frozen=True)
class Transport:
    """One form of the wire. Messages are given and returned in their JSON form."""

    is_http2: bool
    is_json: bool

    @contextlib.contextmanager
    def call(
        self, server: Server, rpc: str, sandbox: str, *requests: dict[str, Any]
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """The answers of a call, as they come; leaving the context gives the call up.

        Raises:
            WireError: while iterating, the error that ended the call.
        """
        request_type, _, streams = SHAPES[rpc]
        written = [self._write(request_type, request) for request in requests]
        content = b"".join(map(envelope, written)) if streams else written[0]
        codec = "json" if self.is_json else "proto"
        headers = {
            "content-type": f"application/connect+{codec}" if streams else f"application/{codec}",
            "x-sandbox-id": sandbox,
        }
        with (
            self._client(server) as client,
            client.stream("POST", f"{SERVICE}/{rpc}", content=content, headers=headers) as response,
        ):
            assert response.http_version == ("HTTP/2" if self.is_http2 else "HTTP/1.1")
            yield self._stream(rpc, response) if streams else self._unary(rpc, response)

    def _client(self, server: Server) -> httpx.Client:
        return httpx.Client(
            base_url=server.url,
            http1=not self.is_http2,
            http2=self.is_http2,
            timeout=DEADLINE_S,
            trust_env=False,
        )

    def _unary(self, rpc: str, response: httpx.Response) -> Iterator[dict[str, Any]]:
        body = response.read()
        if response.status_code != 200:
            raise WireError(json.loads(body))
        yield self._read(SHAPES[rpc][1], body)

    def _stream(self, rpc: str, response: httpx.Response) -> Iterator[dict[str, Any]]:
        assert response.status_code == 200, response.read()
        received = b""
        for piece in response.iter_raw():
            received += piece
            while len(received) >= 5 and len(received) >= 5 + int.from_bytes(received[1:5], "big"):
                size = 5 + int.from_bytes(received[1:5], "big")
                flags, payload, received = received[0], received[5:size], received[size:]
                assert not flags & COMPRESSED
                if flags & END_STREAM:
                    error = json.loads(payload).get("error")
                    if error is not None:
                        raise WireError(error)
                    assert not received, "bytes after the end of the stream"
                    return
                yield self._read(SHAPES[rpc][1], payload)
        raise AssertionError("the stream has no end")

    def _write(self, kind: type[Message], body: dict[str, Any]) -> bytes:
        text = json.dumps(body)
        return text.encode() if self.is_json else kind.from_json(text).to_binary()

    def _read(self, kind: type[Message], payload: bytes) -> dict[str, Any]:
        text = payload if self.is_json else kind.from_binary(payload).to_json()
        decoded: dict[str, Any] = json.loads(text)
        return decoded


TRANSPORTS = {
    "HTTP/1.1 JSON": Transport(is_http2=False, is_json=True),
    "HTTP/1.1 protobuf": Transport(is_http2=False, is_json=False),
    "HTTP/2 JSON": Transport(is_http2=True, is_json=True),
    "HTTP/2 protobuf": Transport(is_http2=True, is_json=False),
}
