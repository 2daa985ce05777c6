"""Transfers against a scripted server: what is sent, and what hostile answers can do here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mitos
from mitos._sdk import local_tree
from mitos._sdk.framing import decode_bytes, encode_bytes, encode_frame
from mitos.types import FileEvent
from tests.sdk.conftest import Sdk
from tests.sdk.scripted import ScriptedServer, frame_chunks, reply, stream

TOO_LARGE = {"code": "resource_exhausted", "message": "over 64 MiB"}


def piece(data: bytes) -> dict[str, str]:
    return {"data": encode_bytes(data)}


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """A tar of these members; files hold `x`s of their size."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return packed.getvalue()


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 1
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def sent_bytes(server: ScriptedServer, call: str, name: str, at: int = 0) -> bytes:
    """The content of a request that sends pieces."""
    return b"".join(decode_bytes(each[name]) for each in server.calls(call)[at].messages[1:])


def test_an_upload_goes_in_pieces_and_tells_how_far_it_is(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    server.on_call("WriteFile", stream({"bytesWritten": "1"}))
    content = bytes(range(256)) * 3000
    (tmp_path / "local").write_bytes(content)
    seen: list[int] = []

    sdk.run(sandbox.files.upload(tmp_path / "local", "/a", 0o600, seen.append))
    sdk.run(sandbox.files.upload(io.BytesIO(b"open"), "/b"))

    first, second = server.calls("WriteFile")
    assert {"open": {"path": "/a", "mode": 0o600}} == first.messages[0]
    assert {"open": {"path": "/b", "mode": 0o644}} == second.messages[0]
    assert content == sent_bytes(server, "WriteFile", "data")
    assert seen == sorted(seen)
    assert len(content) == seen[-1]


def test_a_download_takes_the_old_file_s_place(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    server.on_call("ReadFile", stream(piece(b"ab"), piece(b"\xff"), {"eof": True}))
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o600)
    seen: list[int] = []

    assert 3 == sdk.run(sandbox.files.download("/a", target, seen.append))

    assert (b"ab\xff", 0o600) == (target.read_bytes(), target.stat().st_mode & 0o777)
    assert [2, 3] == seen
    assert [target] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "answer",
    [
        frame_chunks(encode_frame(piece(b"new"))),
        frame_chunks(encode_frame(piece(b"new")), is_cut=True),
        stream(piece(b"new"), end={"error": {"code": "internal", "message": "disk"}}),
        stream(piece(b"new"), {"data": 7}),
        reply({"code": "not_found", "message": "no"}, 404),
    ],
)
def test_a_download_that_fails_leaves_the_old_file(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path, answer: Any
) -> None:
    server.on_call("ReadFile", answer)
    target = tmp_path / "target"
    target.write_bytes(b"old")

    with pytest.raises(mitos.AgentRunError):
        sdk.run(sandbox.files.download("/a", target))

    assert b"old" == target.read_bytes()
    assert [target] == list(tmp_path.iterdir())


def test_a_folder_goes_up_as_a_tar_without_links(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    server.on_call("Upload", stream({"bytesWritten": "1"}))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"one")
    (tmp_path / "link").symlink_to("/etc/passwd")
    seen: list[int] = []

    assert 3 == sdk.run(sandbox.files.upload_dir(tmp_path, "/workspace/up", seen.append))

    assert {"open": {"dest": "/workspace/up"}} == server.calls("Upload")[0].messages[0]
    with tarfile.open(fileobj=io.BytesIO(sent_bytes(server, "Upload", "chunk"))) as archive:
        assert ["d", "d/a"] == archive.getnames()
    assert [3] == seen


def test_large_files_of_a_folder_go_alone(
    sdk: Sdk,
    sandbox: Any,
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_tree, "LARGE_BYTES", 4)
    server.on_call("Upload", stream({"bytesWritten": "1"}))
    server.on_call("WriteFile", stream({"bytesWritten": "1"}))
    (tmp_path / "small").write_bytes(b"one")
    (tmp_path / "large").write_bytes(b"large")

    assert 8 == sdk.run(sandbox.files.upload_dir(tmp_path, "up"))

    assert "up/large" == server.calls("WriteFile")[0].messages[0]["open"]["path"]
    with tarfile.open(fileobj=io.BytesIO(sent_bytes(server, "Upload", "chunk"))) as archive:
        assert ["small"] == archive.getnames()


def test_a_folder_comes_down_as_a_tar(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    packed = tar_of(member("d/a"), member("link", type=tarfile.SYMTYPE, linkname="d/a", size=0))
    server.on_call("Archive", stream(piece(packed[:700]), piece(packed[700:])))

    sdk.run(sandbox.files.download_dir("/workspace/d", tmp_path / "deep/out"))

    assert {"path": "/workspace/d", "direction": "DOWNLOAD"} == server.requests[0].messages[0]
    assert b"x" == (tmp_path / "deep/out/link").read_bytes()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "no tar": lambda: b"nonsense" * 200,
    "cut short": lambda: tar_of(member("a", size=2000))[:1000],
    "up": lambda: tar_of(member("../evil")),
    "absolute link": lambda: tar_of(member("l", type=tarfile.SYMTYPE, linkname="/etc")),
    "link up": lambda: tar_of(member("l", type=tarfile.SYMTYPE, linkname="../../x")),
    "hard link up": lambda: tar_of(member("l", type=tarfile.LNKTYPE, linkname="../secret")),
    "pipe": lambda: tar_of(member("p", type=tarfile.FIFOTYPE, size=0)),
    "device": lambda: tar_of(member("p", type=tarfile.CHRTYPE, size=0, devmajor=1, devminor=5)),
    "NUL in a name": lambda: tar_of(member("a", pax_headers={"path": "a\0b"})),
    "endless number": lambda: tar_of(member("a", pax_headers={"size": "9" * 30})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_writes_nothing_outside_and_is_a_typed_error(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("here")
    server.on_call("Archive", stream(piece(HOSTILE[name]())))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.files.download_dir("d", tmp_path / "out"))

    assert "internal_error" == caught.value.code
    assert caught.value.remediation
    assert {"secret", "out"} == {each.name for each in tmp_path.iterdir()}
    assert not [each for each in (tmp_path / "out").rglob("*") if each.is_symlink()]


def test_a_tree_over_the_limit_is_refused(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    server.on_call("Archive", stream(piece(bytes(600)), piece(bytes(600))))

    with pytest.raises(mitos.AgentRunError, match="request_too_large"):
        sdk.run(sandbox.files.download_dir("d", tmp_path / "out", max_bytes=1000))

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_tree_too_large_for_an_archive_comes_from_tar(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path, exit_code: int
) -> None:
    packed = encode_bytes(tar_of(member("a")))
    server.on_call("Archive", stream(piece(b"begun"), end={"error": TOO_LARGE}))
    server.on_call("ExecStream", stream({"stdout": packed}, {"exit": {"exitCode": exit_code}}))

    sdk.run(sandbox.files.download_dir("a b", tmp_path / "out"))

    assert b"x" == (tmp_path / "out/a").read_bytes()
    assert "tar -C 'a b' -cf - ." == server.calls("ExecStream")[0].messages[0]["command"]


def test_a_tar_that_fails_is_reported_with_its_words(
    sdk: Sdk, sandbox: Any, server: ScriptedServer, tmp_path: Path
) -> None:
    server.on_call("Archive", reply(TOO_LARGE, 429))
    words = {"stderr": encode_bytes(b"tar: not found")}
    server.on_call("ExecStream", stream(words, {"exit": {"exitCode": 127}}))

    with pytest.raises(mitos.AgentRunError) as caught:
        sdk.run(sandbox.files.download_dir("d", tmp_path / "out"))

    assert ("file_failed", "tar: not found") == (caught.value.code, caught.value.cause)
    assert [] == list(tmp_path.iterdir())


def test_changes_come_as_events(sdk: Sdk, sandbox: Any, server: ScriptedServer) -> None:
    changes = [
        {"kind": "CREATE", "path": "/a"},
        {"kind": "RENAME", "path": "/a", "newPath": "/b"},
        {},
    ]
    server.on_call("Watch", stream({}, *changes))

    async def watched() -> list[FileEvent]:
        async with sandbox.files.watch("/w", recursive=True, quiet_s=5) as events:
            return [event async for event in events]

    if sdk.is_async:
        found = sdk.run(watched())
    else:
        with sandbox.files.watch("/w", recursive=True, quiet_s=5) as events:
            found = list(events)

    expected = [FileEvent("CREATE", "/a"), FileEvent("RENAME", "/a", "/b"), FileEvent("", "")]
    assert expected == found
    (request,) = server.requests
    assert [{"path": "/w", "recursive": True}] == request.messages
    assert "1" == request.headers["x-mitos-watch-ready"]
