"""Runtime calls as raw HTTP: envelopes written and read by hand."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from tests.server.serving import Server

SERVICE = "/sandbox.v1.Sandbox"
JSON_STREAM = "application/connect+json"
END_STREAM = 0x02
COMPRESSED = 0x01


def envelope(payload: bytes | dict[str, Any], flags: int = 0) -> bytes:
    """One envelope; an object is written as JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return bytes([flags]) + len(data).to_bytes(4, "big") + data


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    """Flags and payload of each envelope; fails on a torn one."""
    found = []
    while body:
        length = int.from_bytes(body[1:5], "big")
        assert len(body) >= 5 + length, "a torn envelope"
        found.append((body[0], body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def messages(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The JSON messages of a stream and its end; there is exactly one end, and it is last."""
    frames = envelopes(body)
    assert [flags for flags, _ in frames] == [0] * (len(frames) - 1) + [END_STREAM], frames
    decoded = [json.loads(payload) for _, payload in frames]
    return decoded[:-1], decoded[-1]


def stream(
    server: Server, method: str, sandbox: str | None, *requests: dict[str, Any], **headers: str
) -> httpx.Response:
    """A streaming call in JSON with these request messages."""
    sent = {"Content-Type": JSON_STREAM} | ({"X-Sandbox-Id": sandbox} if sandbox else {})
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"".join(envelope(request) for request in requests)
    return server.post(f"{SERVICE}/{method}", content=body, headers=sent)


def unary(
    server: Server, method: str, sandbox: str | None, request: dict[str, Any], **headers: str
) -> httpx.Response:
    """A unary call in JSON."""
    sent = {"X-Sandbox-Id": sandbox} if sandbox else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return server.post(f"{SERVICE}/{method}", json=request, headers=sent)


def run(server: Server, sandbox: str, command: str, **members: Any) -> tuple[str, str, int]:
    """Standard output, standard error and exit code of a command."""
    answer = stream(server, "ExecStream", sandbox, {"command": command, **members})
    assert answer.status_code == 200
    found, end = messages(answer.content)
    assert end == {}, end
    assert "exit" in found[-1]
    output = {"stdout": b"", "stderr": b""}
    for message in found[:-1]:
        ((name, data),) = message.items()
        output[name] += base64.b64decode(data)
    code = int(found[-1]["exit"].get("exitCode", 0))
    return output["stdout"].decode(), output["stderr"].decode(), code


def write(server: Server, sandbox: str, path: str, data: bytes, mode: int = 0) -> httpx.Response:
    """Writes a file as the published client does: all of it in one message."""
    opened = {"open": {"path": path, "mode": mode}}
    content = {"data": base64.b64encode(data).decode()}
    return stream(server, "WriteFile", sandbox, opened, content)


def read(server: Server, sandbox: str, path: str) -> bytes:
    """A file's content."""
    found, end = messages(stream(server, "ReadFile", sandbox, {"path": path}).content)
    assert end == {}, end
    assert [bool(message.get("eof")) for message in found] == [False] * (len(found) - 1) + [True]
    return b"".join(base64.b64decode(message.get("data", "")) for message in found)


def detail(error: dict[str, Any]) -> dict[str, Any]:
    """The `google.rpc.ErrorInfo` detail of a Connect error, read without generated code."""
    (info,) = error["details"]
    assert info["type"] == "google.rpc.ErrorInfo"
    value = info["value"]
    return _fields(base64.b64decode(value + "=" * (-len(value) % 4)))


def _fields(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {}}
    for number, value in _length_delimited(data):
        if number == 3:
            entry = {key: text.decode() for key, text in _length_delimited(value)}
            found["metadata"][entry[1]] = entry.get(2, "")
        else:
            found[{1: "reason", 2: "domain"}[number]] = value.decode()
    return found


def _length_delimited(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        key, data = _varint(data)
        assert key & 7 == 2
        length, data = _varint(data)
        found.append((key >> 3, data[:length]))
        data = data[length:]
    return found


def _varint(data: bytes) -> tuple[int, bytes]:
    number = shift = 0
    for index, byte in enumerate(data):
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, data[index + 1 :]
        shift += 7
    raise AssertionError("a torn number")


def raw_exec(sandbox: str, command: str, method: str = "ExecStream") -> bytes:
    """A whole HTTP/1.1 request that runs a command."""
    opened = {"command": command}
    body = envelope(opened if method == "ExecStream" else {"open": opened})
    return (
        f"POST {SERVICE}/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON_STREAM}\r\n"
        f"X-Sandbox-Id: {sandbox}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
