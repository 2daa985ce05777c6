"""Files through the runtime service."""

from __future__ import annotations

import os

import pytest

from tests.server import calling
from tests.server.calling import END_STREAM, JSON_STREAM, SERVICE, envelope
from tests.server.serving import Server, raw


def test_a_large_file_comes_back_byte_for_byte(server: Server, sandbox: str) -> None:
    content = os.urandom(20 << 20)

    answer = calling.write(server, sandbox, "/workspace/big", content)

    found, end = calling.messages(answer.content)
    assert ([{"bytesWritten": str(len(content))}], {}) == (found, end)
    assert content == calling.read(server, sandbox, "/workspace/big")


def test_content_is_read_in_pieces_of_at_most_32_kib(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/big", b"x" * 200_000)

    answer = calling.stream(server, "ReadFile", sandbox, {"path": "/workspace/big"})

    longest = max(len(payload) for _, payload in calling.envelopes(answer.content))
    assert longest <= 32 * 1024 * 4 // 3 + 64


def test_an_empty_file_is_one_message_with_eof(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/empty", b"")

    answer = calling.stream(server, "ReadFile", sandbox, {"path": "/workspace/empty"})

    assert ([{"eof": True}], {}) == calling.messages(answer.content)


def test_a_file_may_be_written_in_many_messages(server: Server, sandbox: str) -> None:
    pieces = [{"data": "YWI="}, {"data": ""}, {"data": "Y2Q="}]

    calling.stream(server, "WriteFile", sandbox, {"open": {"path": "/workspace/p"}}, *pieces)

    assert b"abcd" == calling.read(server, sandbox, "/workspace/p")


def test_writing_makes_parents_and_takes_the_mode(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/a/b/tool", b"x", 0o755)
    calling.write(server, sandbox, "/workspace/a/b/note", b"x")

    entries = calling.unary(server, "List", sandbox, {"parent": "/workspace/a/b"}).json()["entries"]

    modes = {entry["name"]: entry["mode"] & 0o777 for entry in entries}
    assert {"note": 0o644, "tool": 0o755} == modes
    assert ["note", "tool"] == [entry["name"] for entry in entries]


def test_a_listing_tells_directories_from_files(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/d/.hidden", b"123")

    listed = calling.unary(server, "List", sandbox, {"parent": "/workspace"}).json()["entries"]
    inside = calling.unary(server, "List", sandbox, {"parent": "/workspace/d"}).json()["entries"]

    assert {"d": True} == {entry["name"]: entry["isDir"] for entry in listed}
    assert [(".hidden", "3", False)] == [
        (entry["name"], entry["size"], "isDir" in entry) for entry in inside
    ]


def test_listing_a_file_is_that_one_entry(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/one", b"1")

    answer = calling.unary(server, "List", sandbox, {"parent": "/workspace/one"}).json()

    assert ["/workspace/one"] == [entry["path"] for entry in answer["entries"]]


@pytest.mark.parametrize(
    ("method", "member"), [("List", "parent"), ("Stat", "path"), ("ReadFile", "path")]
)
def test_what_is_not_there_is_not_found(
    server: Server, sandbox: str, method: str, member: str
) -> None:
    if method == "ReadFile":
        answer = calling.stream(server, method, sandbox, {member: "/none"})
        error = calling.messages(answer.content)[1]["error"]
    else:
        unary = calling.unary(server, method, sandbox, {member: "/none"})
        assert 404 == unary.status_code
        error = unary.json()

    assert "not_found" == error["code"]
    assert calling.detail(error)["metadata"]["remediation"]


def test_making_a_directory_twice_is_fine(server: Server, sandbox: str) -> None:
    for _ in range(2):
        answer = calling.unary(server, "Mkdir", sandbox, {"path": "/workspace/x/y"})
        assert (200, {}) == (answer.status_code, answer.json())


def test_removing_takes_trees_and_missing_paths(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/t/deep/file", b"x")

    for _ in range(2):
        answer = calling.unary(server, "Remove", sandbox, {"path": "/workspace/t"})
        assert (200, {}) == (answer.status_code, answer.json())
    assert 404 == calling.unary(server, "Stat", sandbox, {"path": "/workspace/t"}).status_code


def test_the_wrong_type_is_failed_precondition(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/file", b"x")
    read = calling.stream(server, "ReadFile", sandbox, {"path": "/workspace"})
    write = calling.write(server, sandbox, "/workspace", b"x")
    below = calling.stream(server, "ReadFile", sandbox, {"path": "/workspace/file/below"})

    for answer in (read, write, below):
        error = calling.messages(answer.content)[1]["error"]
        assert "failed_precondition" == error["code"]
        assert "file_failed" == calling.detail(error)["reason"]


def test_a_relative_path_is_below_workspace(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "relative.txt", b"x")

    assert b"x" == calling.read(server, sandbox, "/workspace/relative.txt")


def test_an_upload_that_breaks_off_changes_nothing(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/kept", b"before")
    head = (
        f"POST {SERVICE}/WriteFile HTTP/1.1\r\nHost: localhost\r\nX-Sandbox-Id: {sandbox}\r\n"
        f"Content-Type: {JSON_STREAM}\r\nContent-Length: 1000\r\n\r\n"
    ).encode()
    body = envelope({"open": {"path": "/workspace/kept"}}) + envelope({"data": "YWJj"})
    with raw(server, head + body):
        pass

    assert b"before" == calling.read(server, sandbox, "/workspace/kept")


def test_a_download_ends_with_exactly_one_end_frame(server: Server, sandbox: str) -> None:
    calling.write(server, sandbox, "/workspace/f", b"x" * 70_000)

    answer = calling.stream(server, "ReadFile", sandbox, {"path": "/workspace/f"})

    flags = [flags for flags, _ in calling.envelopes(answer.content)]
    assert [END_STREAM] == [flag for flag in flags if flag]
    assert END_STREAM == flags[-1]
