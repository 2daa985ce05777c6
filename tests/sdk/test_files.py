"""Files: what is sent, and what comes back."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

import mitos
from mitos._sdk.framing import encode_bytes as b64
from mitos._sdk.outage import BREAK_DELAYS_S
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import Answer, ScriptedServer, cut, frame_chunks, reply, stream

MISSING = {"code": "not_found", "message": "no such file"}


def test_read_joins_the_chunks(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    text = "draft é".encode()
    chunks = [{"data": b64(text[:7])}, {"data": b64(text[7:])}, {"eof": True}]
    server.on_call("ReadFile", stream(*chunks))

    assert "draft é" == sdk.run(sandbox.files.read("/workspace/plan.txt"))
    assert text == sdk.run(sandbox.files.read_bytes("/workspace/plan.txt"))
    assert [{"path": "/workspace/plan.txt"}] == server.requests[0].messages


def test_bytes_come_back_exactly_and_text_with_replacement(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    data = bytes(range(256))
    server.on_call("ReadFile", stream({"data": b64(data), "eof": True}))

    assert data == sdk.run(sandbox.files.read_bytes("x"))
    assert "\ufffd" in sdk.run(sandbox.files.read("x"))


def test_an_empty_file_is_empty(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("ReadFile", stream({"eof": True}))

    assert b"" == sdk.run(sandbox.files.read_bytes("x"))


def test_url_safe_base64_without_padding_is_read_too(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    text = base64.urlsafe_b64encode(b"\xfb\xff\xfe\x01").decode().rstrip("=")
    server.on_call("ReadFile", stream({"data": text, "eof": True}))

    assert b"\xfb\xff\xfe\x01" == sdk.run(sandbox.files.read_bytes("x"))


def test_a_file_that_breaks_off_is_not_returned(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ReadFile", frame_chunks())

    with pytest.raises(mitos.AgentRunError, match="truncated_stream"):
        sdk.run(sandbox.files.read("x"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("é", "é".encode()), (b"\x00\xff", b"\x00\xff"), (bytearray(b"ab"), b"ab"), ("", b"")],
)
def test_write_opens_then_sends_the_content(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, content: Any, expected: bytes
) -> None:
    server.on_call("WriteFile", stream({"bytesWritten": str(len(expected))}))

    assert sdk.run(sandbox.files.write("/workspace/a", content)) is None

    opening, data = server.calls("WriteFile")[0].messages
    assert {"open": {"path": "/workspace/a", "mode": 420}} == opening
    assert {"data": b64(expected)} == data


def test_a_large_file_goes_in_pieces(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("WriteFile", stream({"bytesWritten": "1"}))
    content = bytes(range(256)) * 10_000

    sdk.run(sandbox.files.write("/workspace/a", content))

    _, *pieces = server.calls("WriteFile")[0].messages
    assert 3 == len(pieces)
    assert content == b"".join(base64.b64decode(piece["data"]) for piece in pieces)


def test_write_sends_the_mode(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("WriteFile", stream({}))

    sdk.run(sandbox.files.write("/workspace/a", "x", mode=0o600))

    assert 384 == server.calls("WriteFile")[0].messages[0]["open"]["mode"]


def test_content_that_is_no_content_is_refused_before_any_request(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        sdk.run(sandbox.files.write("/workspace/a", 5))

    assert [] == server.requests


def test_list_gives_rows(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    file = {"name": "a", "size": "17", "mode": 33188, "modifiedAtUnix": "1700000000"}
    folder = {"name": "d", "isDir": True}
    server.on_call("List", reply({"entries": [file, folder]}))

    found = sdk.run(sandbox.files.list("/workspace"))

    expected = mitos.FileInfo("a", is_dir=False, size=17, mode=33188, modified_at="1700000000")
    assert [expected, mitos.FileInfo("d", is_dir=True, size=0)] == found
    assert {"parent": "/workspace"} == server.requests[0].json
    assert "application/json" == server.requests[0].headers["content-type"]


@pytest.mark.parametrize("answer", [{}, {"entries": []}])
def test_an_empty_directory_has_no_rows(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, answer: dict[str, Any]
) -> None:
    server.on_call("List", reply(answer))

    assert [] == sdk.run(sandbox.files.list())
    assert {"parent": "/"} == server.requests[0].json


@pytest.mark.parametrize("entries", ["x", [7], [{"size": "big"}], [{"mode": []}]])
def test_a_listing_of_another_form_is_a_typed_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, entries: Any
) -> None:
    server.on_call("List", reply({"entries": entries}))

    with pytest.raises(mitos.AgentRunError):
        sdk.run(sandbox.files.list())


def test_exists_is_false_for_a_missing_path_only(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    not_a_directory = {"code": "internal", "message": "/etc/passwd: Not a directory"}
    forbidden = {"code": "permission_denied", "message": "no"}
    server.on_call(
        "List",
        reply({"entries": []}),
        reply(MISSING, 404),
        reply(not_a_directory, 500),
        reply(forbidden, 403),
    )

    assert True is sdk.run(sandbox.files.exists("/workspace"))
    assert False is sdk.run(sandbox.files.exists("/nope"))
    assert True is sdk.run(sandbox.files.exists("/etc/passwd"))
    with pytest.raises(mitos.AgentRunError, match="permission_denied"):
        sdk.run(sandbox.files.exists("/root"))


def test_a_compressed_answer_is_read(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    body = gzip.compress(json.dumps({"entries": [{"name": "a"}]}).encode())
    server.on_call("List", Answer(200, body, {"Content-Encoding": "gzip"}))

    assert ["a"] == [each.name for each in sdk.run(sandbox.files.list())]
    assert "gzip" in server.requests[0].headers["accept-encoding"]


@pytest.mark.parametrize(
    ("written", "expected"), [("1700000000", "1700000000"), (1700000000, 1700000000), (None, None)]
)
def test_a_file_s_time_is_as_the_server_wrote_it(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, written: Any, expected: Any
) -> None:
    entry = {"name": "a"} if written is None else {"name": "a", "modifiedAtUnix": written}
    server.on_call("List", reply({"entries": [entry]}))

    (found,) = sdk.run(sandbox.files.list())

    assert (type(expected), expected) == (type(found.modified_at), found.modified_at)


def test_remove_and_mkdir_name_the_path(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("Remove", reply({}))
    server.on_call("Mkdir", reply({}))

    assert sdk.run(sandbox.files.remove("/a")) is None
    assert sdk.run(sandbox.files.mkdir("/b/c")) is None

    assert [{"path": "/a"}, {"path": "/b/c"}] == [request.json for request in server.requests]
    assert "sb-1" == server.requests[0].headers["x-sandbox-id"]


def test_an_empty_answer_is_an_empty_object(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    server.on_call("List", reply({}))
    server.on_call("Mkdir", frame_chunks())

    sdk.run(sandbox.files.mkdir("/b"))


def test_reading_a_missing_file_is_not_found(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("ReadFile", stream(end={"error": MISSING}), reply(MISSING, 404))

    for _ in range(2):
        with pytest.raises(mitos.NotFoundError) as caught:
            sdk.run(sandbox.files.read("/does/not/exist"))
        assert ("not_found", 404) == (caught.value.code, caught.value.status)
        assert "no such file" == caught.value.cause
        assert caught.value.remediation


def test_a_call_whose_connection_breaks_is_repeated_a_few_times(
    sdk: Sdk, sandbox: Any, server: ScriptedServer
) -> None:
    server.on_call("List", cut(), reply({"entries": [{"name": "a"}]}))

    assert ["a"] == [entry.name for entry in sdk.run(sandbox.files.list())]

    server.on_call("List", cut())
    with pytest.raises(mitos.AgentRunError, match="connection_failed"):
        sdk.run(sandbox.files.list())
    assert 2 + 1 + len(BREAK_DELAYS_S) == len(server.requests)
