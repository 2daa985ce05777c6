"""Decoders of what a client sends."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.datastructures import Headers

from mitos.agent.transfer import tar
from mitos.server import codec
from mitos.server.gate import credential, host, origin
from mitos.server.ports import target as port_target
from mitos.wire import network, preview, workload
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from mitos.wire.errors import ApiError
from tests.fuzz.decoders.base import VECTORS, Target, halves

__all__ = ["TARGETS"]

_REQUESTS = sorted(
    (each for name, each in vars(pb).items() if name.endswith("Request")), key=lambda c: c.__name__
)


def codecs(data: bytes) -> None:
    """The first byte says of which message it is JSON; what is read can be written."""
    if not data:
        return
    decoder = codec.LenientJsonCodec()
    try:
        message = decoder.decode(data[1:], _REQUESTS[data[0] % len(_REQUESTS)])
    except (ValueError, TypeError):
        return
    assert message == decoder.decode(decoder.encode(message), type(message))


def _calls() -> Iterator[bytes]:
    names = [each.__name__ for each in _REQUESTS]
    for call in json.loads((VECTORS / "runtime.json").read_text())["vectors"]:
        name = f"{call['rpc']}Request"
        for request in call["requests"]:
            yield bytes([names.index(name) if name in names else 0]) + json.dumps(request).encode()


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None


def postures(data: bytes) -> None:
    """What was read is shown so that it is read again."""
    try:
        posture = network.NetworkPosture.parse(_json(data))
    except ApiError:
        return
    assert posture == network.NetworkPosture.parse(posture.to_template())
    json.dumps(posture.to_sandbox())


def workloads(data: bytes) -> None:
    """A program that the agent can be told to start, or refused."""
    body = _json(data)
    wait = body.get("wait") if isinstance(body, dict) else None
    try:
        found = workload.Workload.parse(body, wait_s=wait)
    except ApiError:
        return
    if found is not None:
        assert found.command
        assert 1 <= found.wait_s <= workload.MAX_WAIT_S


_SECRET = b"0123456789abcdef"


def grants(data: bytes) -> None:
    """As they come; and sealed, as if the secret were known: only a grant is one."""
    text = data.decode("utf-8", "surrogateescape")
    payload = preview._encode(data)
    for tag, read in (
        (preview._TOKEN_TAG, preview.verify),
        (preview._SESSION_TAG, preview.open_session),
    ):
        seal = preview._encode(preview._mac(_SECRET, tag, payload))
        for given in (text, f"{payload}.{seal}"):
            try:
                grant = read(_SECRET, given, now_unix=1e9)
            except preview.GrantError:
                continue
            assert given != text
            assert grant.expires_unix >= 1e9


def _grants() -> Iterator[bytes]:
    yield b'{"s":"sb-1","p":8080,"e":1700000000}'
    yield b'{"s":"sb-1","p":8080,"e":1700000000,"o":"me"}'
    yield b'{"sub":"sb-1:8080","exp":1700000000}'


def doors(data: bytes) -> None:
    """Lines of a request's head that the gate reads before it knows the caller."""
    lines = data.split(b"\n")
    named = zip((b"host", b"origin", b"cookie", b"authorization"), lines, strict=False)
    headers = Headers(raw=list(named))
    rest = lines[4:]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": rest[0].decode("latin-1") if rest else "/",
        "query_string": rest[1] if len(rest) > 1 else b"",
        "headers": headers.raw,
    }
    authority = host.read(headers)
    for check in (
        lambda: host.HostRule("http://127.0.0.1:8080", ("a.example",)).check(authority, "::1"),
        lambda: origin.OriginRule("http://127.0.0.1:8080", ()).check(headers, authority),
        lambda: credential.check_key(headers.get("authorization"), "key"),
    ):
        try:
            check()
        except ApiError:
            continue
    list(credential.cookies(headers, "session"))
    credential.query_token(scope)
    path = port_target.path_without_token(scope)
    assert path.startswith(b"/")
    assert b"/../" not in path.partition(b"?")[0]


def _doors() -> Iterator[bytes]:
    yield b"localhost:80\nhttp://localhost:80\nsession=a; b=c\nBearer key\n/a/./b/../c\ntoken=x&y"
    yield b"[::1]:80\nnull\nsession=\nBasic\n/../..\n"


def _run(work: Any) -> Any:
    """Runs a coroutine that never waits; a loop for each input would take most of the time."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        if part:
            yield part


async def _members(*parts: bytes) -> list[tuple[str, int]]:
    reader, found = tar.TarReader(_chunks(*parts)), []
    while (member := await tar.next_member(reader)) is not None:
        found.append((member.name, member.size))
        async for _ in reader.pieces(member.size + -member.size % tar.BLOCK):
            pass
    return found


def tars(data: bytes) -> None:
    """However it is cut: its members, or refused."""
    outcomes = []
    for parts in ((data,), halves(data)):
        try:
            outcomes.append(_run(_members(*parts)))
        except ApiError as exc:
            outcomes.append(exc.envelope())
    assert outcomes[0] == outcomes[1]
    try:
        assert tar.workspace_path(data.decode("utf-8", "surrogateescape")).startswith("/workspace")
    except ApiError:
        return


def _tars() -> Iterator[bytes]:
    for shape in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=shape) as archive:
            for name, kind in (("d", tarfile.DIRTYPE), ("f" * 99, tarfile.REGTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.size = kind, 3 if kind == tarfile.REGTYPE else 0
                archive.addfile(member, io.BytesIO(b"abc"))
            if shape != tarfile.USTAR_FORMAT:
                archive.addfile(tarfile.TarInfo("long/" * 60 + "é"))
        yield buffer.getvalue()


_POSTURES = (
    b'{"block": false, "egress": "allow", "allow_domains": ["*.a.b:443"]}',
    b'{"inbound": "allow", "allow_cidrs": ["10.0.0.0/8"], "inbound_cidrs": ["::/0"]}',
)
_WORKLOADS = (
    b'{"command": ["a", "b"], "env": {"A": "b"}, "wait": 3}',
    b'{"command": ["a"], "ready": {"port": 80, "path": "/", "expect": 200, "timeout_seconds": 1}}',
)

TARGETS = {
    "codec": Target(codecs, (codec,), _calls),
    "network": Target(postures, (network,), lambda: iter(_POSTURES)),
    "workload": Target(workloads, (workload,), lambda: iter(_WORKLOADS)),
    "preview": Target(grants, (preview,), _grants),
    "door": Target(doors, (host, origin, credential, port_target), _doors),
    "tar": Target(tars, (tar,), _tars),
}
