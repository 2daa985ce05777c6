"""The Connect protocol as the contract wants it: refusals, framing, codecs, errors."""

from __future__ import annotations

import base64
import gzip
import json

import httpx
import pytest

from mitos.node.tenant import Tenant
from mitos.wire._generated.sandbox.v1 import sandbox_pb as pb
from tests.server import calling
from tests.server.calling import END_STREAM, JSON_STREAM, SERVICE, envelope
from tests.server.serving import Server

UNARY = ["List", "Stat", "Mkdir", "Remove", "Processes", "Signal"]


# Refusals by HTTP


def test_an_unknown_method_is_404(server: Server, sandbox: str) -> None:
    for content_type in ("application/json", JSON_STREAM):
        headers = {"Content-Type": content_type, "X-Sandbox-Id": sandbox}
        answer = server.post(f"{SERVICE}/Nothing", content=b"{}", headers=headers)
        assert 404 == answer.status_code


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_another_http_method_is_405(server: Server, method: str) -> None:
    answer = server.request(method, f"{SERVICE}/List")

    assert (405, "POST") == (answer.status_code, answer.headers["allow"])


def test_another_content_type_is_415(server: Server, sandbox: str) -> None:
    for method in ("List", "ExecStream", "Exec"):
        for content_type in ("text/plain", "application/xml", ""):
            headers = {"Content-Type": content_type, "X-Sandbox-Id": sandbox}
            answer = server.post(f"{SERVICE}/{method}", content=b"{}", headers=headers)
            assert 415 == answer.status_code, (method, content_type)
            assert "application/" in answer.headers["accept-post"]


def test_a_stream_call_with_a_unary_content_type_is_415(server: Server, sandbox: str) -> None:
    answer = calling.unary(server, "ExecStream", sandbox, {"command": "true"})

    assert 415 == answer.status_code


# Headers


def test_a_missing_or_bad_sandbox_id_is_invalid(server: Server) -> None:
    for sandbox in (None, "a/b", "../x", "a" * 65):
        answer = calling.unary(server, "List", sandbox, {"parent": "/"})
        assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])
        end = calling.messages(
            calling.stream(server, "ExecStream", sandbox, {"command": "true"}).content
        )[1]
        assert "invalid_argument" == end["error"]["code"]


def test_an_unknown_sandbox_is_not_found(server: Server) -> None:
    unary = calling.unary(server, "List", "nobody", {"parent": "/"})
    stream = calling.stream(server, "ExecStream", "nobody", {"command": "true"})

    assert (404, "not_found") == (unary.status_code, unary.json()["code"])
    found, end = calling.messages(stream.content)
    assert (200, [], "not_found") == (stream.status_code, found, end["error"]["code"])


def test_a_terminated_sandbox_is_not_found(server: Server, sandbox: str) -> None:
    server.delete(f"/v1/sandboxes/{sandbox}")

    answer = calling.unary(server, "List", sandbox, {"parent": "/"})

    assert (404, "not_found") == (answer.status_code, answer.json()["code"])


def test_only_protocol_version_1_is_served(server: Server, sandbox: str) -> None:
    for version, status in (("1", 200), ("2", 400), ("x", 400)):
        headers = {"Connect_Protocol_Version": version}
        answer = calling.unary(server, "List", sandbox, {"parent": "/"}, **headers)
        assert status == answer.status_code
        if status == 400:
            assert "invalid_argument" == answer.json()["code"]


@pytest.mark.parametrize("bad", ["soon", "-5", "12345678901", "1.5", "+1"])
def test_a_malformed_timeout_is_invalid(server: Server, sandbox: str, bad: str) -> None:
    answer = calling.unary(server, "List", sandbox, {"parent": "/"}, Connect_Timeout_Ms=bad)

    assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])


def test_an_expired_timeout_is_deadline_exceeded(server: Server, sandbox: str) -> None:
    answer = calling.stream(
        server, "ExecStream", sandbox, {"command": "sleep 10"}, Connect_Timeout_Ms="200"
    )

    assert "deadline_exceeded" == calling.messages(answer.content)[1]["error"]["code"]


def test_a_header_that_is_not_text_is_refused(server: Server) -> None:
    with server.client() as client:
        answer = client.post(
            f"{SERVICE}/List", json={}, headers=[(b"X-Sandbox-Id", b"\xff\xfe\x00"[:2])]
        )

    assert 400 == answer.status_code


# Framing


def test_answers_are_plain_unless_the_client_lists_a_codec(server: Server, sandbox: str) -> None:
    request = {"command": "printf " + "x" * 5000}
    plain = calling.stream(server, "ExecStream", sandbox, request, Accept_Encoding="gzip, deflate")
    packed = calling.stream(server, "ExecStream", sandbox, request, Connect_Accept_Encoding="gzip")

    assert "content-encoding" not in plain.headers
    assert {0, END_STREAM} == {flags for flags, _ in calling.envelopes(plain.content)}
    assert "gzip" == packed.headers["connect-content-encoding"]
    flags, payload = calling.envelopes(packed.content)[0]
    assert 1 == flags
    assert json.loads(gzip.decompress(payload))["stdout"]


def test_a_unary_answer_may_be_compressed(server: Server, sandbox: str) -> None:
    answer = calling.unary(server, "List", sandbox, {"parent": "/"}, Accept_Encoding="gzip")

    assert "gzip" == answer.headers["content-encoding"]
    assert answer.json()["entries"]


def test_an_unknown_compression_is_unimplemented(server: Server, sandbox: str) -> None:
    unary = calling.unary(server, "List", sandbox, {"parent": "/"}, Content_Encoding="br")
    stream = calling.stream(
        server, "ExecStream", sandbox, {"command": "true"}, Connect_Content_Encoding="br"
    )

    assert (501, "unimplemented") == (unary.status_code, unary.json()["code"])
    assert "unimplemented" == calling.messages(stream.content)[1]["error"]["code"]


def test_a_stream_has_no_length_and_one_end(server: Server, sandbox: str) -> None:
    for command in ("echo hi", "exit 3", "no-such-program", ""):
        answer = calling.stream(server, "ExecStream", sandbox, {"command": command})
        assert "content-length" not in answer.headers
        assert JSON_STREAM == answer.headers["content-type"]
        assert {} == calling.messages(answer.content)[1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x09{}",
        b"\x40\x00\x00\x00\x02{}",
        b"\x01\x00\x00\x00\x02{}",
        b"\x02\x00\x00\x00\x02{}",
        b"\x00\xff\xff\xff\xff{}",
        envelope(b"{"),
        envelope(b"[]"),
        envelope(b"\xff\xfe"),
        envelope(b'{"command": 5}'),
        envelope(b'{"env": {"A": 5}}'),
        envelope(b'{"env": 5}'),
        envelope(b'{"env": [5]}'),
        envelope(b'{"env":' + b"[" * 50_000),
        envelope({"command": "true"}) * 2,
        envelope({"command": "true"}) + b"\x00\x00",
    ],
)
def test_a_broken_stream_is_an_error_at_its_end(server: Server, sandbox: str, body: bytes) -> None:
    headers = {"Content-Type": JSON_STREAM, "X-Sandbox-Id": sandbox}

    answer = server.post(f"{SERVICE}/ExecStream", content=body, headers=headers)

    found, end = calling.messages(answer.content)
    assert (200, []) == (answer.status_code, found)
    assert end["error"]["code"] in {
        "invalid_argument", "unimplemented", "internal", "resource_exhausted",
    }  # fmt: skip
    assert "Traceback" not in end["error"].get("message", "")
    assert ("on\n", "", 0) == calling.run(server, sandbox, "echo on")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"parent": 5}', b'"x"', b"[" * 50_000])
def test_a_broken_unary_message_is_invalid(server: Server, sandbox: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-Sandbox-Id": sandbox}

    answer = server.post(f"{SERVICE}/List", content=body, headers=headers)

    assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("method", ["Exec", "RunCode", "WriteFile"])
def test_a_stream_must_begin_with_open(server: Server, sandbox: str, method: str) -> None:
    for requests in ([], [{"stdin": "eA=="}] if method != "WriteFile" else [{"data": "eA=="}]):
        answer = calling.stream(server, method, sandbox, *requests)
        assert "invalid_argument" == calling.messages(answer.content)[1]["error"]["code"]


# JSON


def test_both_spellings_of_a_member_are_taken(server: Server, sandbox: str) -> None:
    for member in ("timeoutSeconds", "timeout_seconds"):
        answer = calling.stream(
            server, "ExecStream", sandbox, {"command": "sleep 10", member: 1, "unknown": [1]}
        )
        assert 124 == calling.messages(answer.content)[0][-1]["exit"]["exitCode"]


def test_numbers_may_be_text_and_null_is_unset(server: Server, sandbox: str) -> None:
    request = {"command": "echo $A", "timeoutSeconds": "5", "cwd": None, "env": None}

    answer = calling.stream(server, "ExecStream", sandbox, request)

    assert "exit" in calling.messages(answer.content)[0][-1]


def test_content_may_be_base64_of_either_alphabet(server: Server, sandbox: str) -> None:
    content = bytes(range(248, 256)) * 2
    for text in (base64.b64encode(content), base64.urlsafe_b64encode(content).rstrip(b"=")):
        opened = {"open": {"path": "/workspace/b64"}}
        calling.stream(server, "WriteFile", sandbox, opened, {"data": text.decode()})
        assert content == calling.read(server, sandbox, "/workspace/b64")


def test_the_older_spelling_of_variables_and_directory_is_understood(
    server: Server, sandbox: str
) -> None:
    calling.run(server, sandbox, "mkdir -p /workspace/deep")
    as_object = {"env": {"GREETING": "hello"}, "workingDir": "/workspace/deep"}
    as_list = {"env": [{"key": "GREETING", "value": "hello"}], "cwd": "/workspace/deep"}

    for members in (as_object, as_list):
        assert "hello\n" == calling.run(server, sandbox, "echo $GREETING", **members)[0]
        assert "/workspace/deep\n" == calling.run(server, sandbox, "pwd", **members)[0]
    both = {"cwd": "/workspace", "workingDir": "/workspace/deep"}
    assert "/workspace\n" == calling.run(server, sandbox, "pwd", **both)[0]


def test_a_clean_end_of_a_cell_is_written_out(server: Server, sandbox: str) -> None:
    answer = calling.stream(server, "RunCodeStream", sandbox, {"code": "x = 1"})

    assert b'{"exitCode":0}' == calling.envelopes(answer.content)[-2][1].replace(b" ", b"")


def test_file_sizes_and_times_are_text_and_modes_numbers(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/five", b"12345")

    info = calling.unary(server, "Stat", sandbox, {"path": "/workspace/five"}).json()

    assert ("five", "/workspace/five", "5") == (info["name"], info["path"], info["size"])
    assert (0o100644, str) == (info["mode"], type(info["modifiedAtUnix"]))
    assert "isDir" not in info


# The binary codec


def test_the_binary_codec_gives_the_same_answers(server: Server, sandbox: str) -> None:
    headers = {"Content-Type": "application/proto", "X-Sandbox-Id": sandbox}
    body = pb.ListRequest(parent="/").to_binary()
    unary = server.post(f"{SERVICE}/List", content=body, headers=headers)
    headers["Content-Type"] = "application/connect+proto"
    body = envelope(pb.ExecStreamRequest(command="echo hi").to_binary())
    stream = server.post(f"{SERVICE}/ExecStream", content=body, headers=headers)

    names = [entry.name for entry in pb.ListResponse.from_binary(unary.content).entries]
    in_json = calling.unary(server, "List", sandbox, {"parent": "/"}).json()["entries"]
    assert [entry["name"] for entry in in_json] == names
    assert "application/proto" == unary.headers["content-type"]
    assert "application/connect+proto" == stream.headers["content-type"]
    frames = calling.envelopes(stream.content)
    answers = [pb.ExecResponse.from_binary(payload) for _, payload in frames[:-1]]
    assert ["stdout", "exit"] == [answer.msg.field for answer in answers if answer.msg]
    assert (END_STREAM, b"{}") == frames[-1]


def test_errors_are_json_with_the_binary_codec_too(server: Server) -> None:
    headers = {"Content-Type": "application/proto", "X-Sandbox-Id": "nobody"}

    answer = server.post(f"{SERVICE}/List", content=b"", headers=headers)

    assert "application/json" == answer.headers["content-type"]
    assert "not_found" == answer.json()["code"]


# Errors


def test_an_error_carries_our_code_and_what_to_do(server: Server, sandbox: str) -> None:
    error = calling.unary(server, "Stat", sandbox, {"path": "/none"}).json()

    info = calling.detail(error)
    assert "not_found" == error["code"]
    assert ("not_found", "mitos.run") == (info["reason"], info["domain"])
    assert info["metadata"]["remediation"]
    assert "/none" == info["metadata"]["path"]


def test_a_timeout_over_the_ceiling_is_refused(server: Server, sandbox: str) -> None:
    for method, request in (
        ("ExecStream", {"command": "true", "timeoutSeconds": 86_401}),
        ("RunCodeStream", {"code": "1", "timeoutSeconds": 86_401}),
        ("Exec", {"open": {"command": "true", "timeoutSeconds": 86_401}}),
    ):
        answer = calling.stream(server, method, sandbox, request)
        error = calling.messages(answer.content)[1]["error"]
        info = calling.detail(error)
        assert ("invalid_argument", "timeout_too_large") == (error["code"], info["reason"])
        assert "86400" == info["metadata"]["max_timeout_s"]
        assert "86401" == info["metadata"]["requested_s"]


def test_a_timeout_at_the_ceiling_is_fine(server: Server, sandbox: str) -> None:
    assert 0 == calling.run(server, sandbox, "true", timeoutSeconds=86_400)[2]


def test_a_bug_is_internal_and_tells_nothing(
    server: Server, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_tenant: Tenant, _sandbox: str) -> None:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr(Tenant, "agent", fail)
    monkeypatch.setattr(Tenant, "stream", fail)
    unary = calling.unary(server, "List", sandbox, {"parent": "/"})
    stream = calling.stream(server, "ExecStream", sandbox, {"command": "true"})

    assert (500, "internal") == (unary.status_code, unary.json()["code"])
    assert "internal" == calling.messages(stream.content)[1]["error"]["code"]
    assert "secret of ours" not in unary.text + stream.text


def test_a_connection_is_used_again_after_streams_and_errors(server: Server, sandbox: str) -> None:
    headers = {"Content-Type": JSON_STREAM, "X-Sandbox-Id": sandbox}
    ports = set()

    with server.client() as client:
        for command in ("echo a", "exit 1", "no-such-program"):
            body = envelope({"command": command})
            answer = client.post(f"{SERVICE}/ExecStream", content=body, headers=headers)
            calling.messages(answer.content)
            ports.add(_local_port(answer))
        gone = {**headers, "X-Sandbox-Id": "nobody"}
        ports.add(_local_port(client.post(f"{SERVICE}/ExecStream", content=body, headers=gone)))
        ports.add(_local_port(client.get("/v1/health")))

    assert 1 == len(ports)


def _local_port(answer: httpx.Response) -> int:
    stream = answer.extensions["network_stream"]
    return int(stream.get_extra_info("client_addr")[1])
