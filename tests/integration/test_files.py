"""The file operations of the runtime service, on real sandboxes, in every form they are called."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mitos import DirectSandbox
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

END_STREAM = 2
SERVICE = "/sandbox.v1.Sandbox/"


def envelope(payload: bytes) -> bytes:
    return struct.pack("!BI", 0, len(payload)) + payload


def envelopes(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        flags, length = struct.unpack_from("!BI", body)
        yield flags, body[5 : 5 + length]
        body = body[5 + length :]


class Caller:
    """Streaming runtime calls in JSON; raises AssertionError for an error of the server."""

    def __init__(self, server: Server, sandbox: DirectSandbox) -> None:
        self._url = server.url + SERVICE
        self._id = sandbox.id

    def stream(
        self, method: str, *messages: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The messages of the answer and the error it ended in, empty for none."""
        response = httpx.post(
            self._url + method,
            content=b"".join(envelope(json.dumps(message).encode()) for message in messages),
            headers={"Content-Type": "application/connect+json", "X-Sandbox-Id": self._id},
            timeout=60,
        )
        assert response.status_code == 200, response.text
        *found, (flags, end) = envelopes(response.content)
        assert flags == END_STREAM
        return [json.loads(payload) for _, payload in found], json.loads(end).get("error", {})

    def unary(self, method: str, message: dict[str, Any]) -> httpx.Response:
        return httpx.post(
            self._url + method, json=message, headers={"X-Sandbox-Id": self._id}, timeout=60
        )

    def archive(self, path: str) -> bytes:
        messages, error = self.stream("Archive", {"path": path, "direction": "DOWNLOAD"})
        assert error == {}
        assert messages[-1].get("eof") is True
        return b"".join(base64.b64decode(message.get("data", "")) for message in messages)

    def upload(self, dest: str, content: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
        chunks = [{"chunk": base64.b64encode(piece).decode()} for piece in pieces]
        return self.stream("Upload", {"open": {"dest": dest}}, *chunks)


@pytest.fixture
def caller(server: Server, sandbox: DirectSandbox) -> Caller:
    return Caller(server, sandbox)


def tar_of(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_archive_holds_the_tree_with_modes_links_and_odd_names(
    caller: Caller, sandbox: DirectSandbox
) -> None:
    sandbox.exec(
        "mkdir -p t/deep/er t/empty; echo hi > t/a; chmod 750 t/a; ln -s a t/link; mkfifo t/pipe;"
        " head -c 300000 /dev/urandom > t/deep/big; "
        " echo x > t/deep/er/\"$(printf 'n%.0s' $(seq 200))\";"
        " echo r > \"$(printf 't/raw\\377')\""
    )

    with tarfile.open(fileobj=io.BytesIO(caller.archive("t")), errors="surrogateescape") as found:
        members = {member.name: member for member in found}
        big = found.extractfile("deep/big")
        assert big is not None
        digest = sandbox.exec("sha256sum t/deep/big").stdout.split()[0]
        assert hashlib.sha256(big.read()).hexdigest() == digest
    assert {"a", "link", "empty", "deep", "deep/big", "deep/er", "deep/er/" + "n" * 200} <= set(
        members
    )
    assert "raw\udcff" in members
    assert "pipe" not in members
    assert members["a"].mode == 0o750
    assert members["link"].linkname == "a"


def test_upload_unpacks_and_counts_the_tar(caller: Caller, sandbox: DirectSandbox) -> None:
    executable = tarfile.TarInfo("bin/" + "l" * 150)
    executable.mode = 0o755
    content = tar_of(("a", b"one"), (executable, b"two"), ("big", b"z" * 200_000), ("a", b"last"))

    messages, error = caller.upload("/workspace/new/folder", content)

    assert error == {}
    assert messages == [{"bytesWritten": str(len(content))}]
    assert sandbox.files.read("new/folder/a") == "last"
    assert sandbox.files.read("new/folder/big") == "z" * 200_000
    assert sandbox.exec(f"stat -c %a new/folder/bin/{'l' * 150}").stdout == "755\n"


@pytest.mark.parametrize(
    "member",
    [
        "../out",
        "a/../../out",
        "/etc/out",
        special("link", tarfile.SYMTYPE, "/etc"),
        special("inner", tarfile.SYMTYPE, "a"),
        special("hard", tarfile.LNKTYPE, "/etc/passwd"),
        special("pipe", tarfile.FIFOTYPE),
        special("device", tarfile.CHRTYPE),
    ],
    ids=str,
)
def test_upload_refuses_what_leaves_the_folder_or_is_no_file(
    caller: Caller, sandbox: DirectSandbox, member: tarfile.TarInfo | str
) -> None:
    _, error = caller.upload("/workspace/in", tar_of((member, b"")))

    assert error["code"] == "permission_denied"
    assert sandbox.exec("ls -A /workspace/in; ls /workspace/out /etc/out 2>/dev/null").stdout == ""


def test_upload_does_not_write_through_links_of_the_sandbox(
    caller: Caller, sandbox: DirectSandbox
) -> None:
    sandbox.exec("mkdir in; ln -s /etc in/folder; ln -s /etc/out in/file")

    for name in ("folder/out", "file"):
        _, error = caller.upload("in", tar_of((name, b"x")))
        assert error["code"] == "permission_denied", name
    _, error = caller.upload("in/folder", tar_of(("out", b"x")))
    assert error["code"] == "permission_denied"
    assert not sandbox.files.exists("/etc/out")


@pytest.mark.parametrize(
    "content",
    [b"no tar" * 200, tar_of(("a", b"x" * 2000))[:1000], tar_of(("l" * 150, b""))[:700]],
    ids=["garbage", "cut member", "cut header"],
)
def test_upload_refuses_what_is_no_whole_tar(caller: Caller, content: bytes) -> None:
    assert caller.upload("in", content)[1]["code"] == "invalid_argument"


def test_upload_bounds_extension_records(caller: Caller) -> None:
    header = special("x", tarfile.GNUTYPE_LONGNAME)
    header.size = 1 << 40

    _, error = caller.upload("in", header.tobuf(tarfile.GNU_FORMAT) + b"a" * 4096)

    assert error["code"] == "invalid_argument"


@pytest.mark.parametrize("path", ["/etc", "..", "/workspaceX", "", "/workspace/../etc"])
def test_transfers_stay_in_the_workspace(caller: Caller, path: str) -> None:
    codes = [
        caller.stream("Archive", {"path": path, "direction": "DOWNLOAD"})[1]["code"],
        caller.upload(path, tar_of(("a", b"")))[1]["code"],
        caller.stream("Watch", {"path": path})[1]["code"],
    ]

    assert codes == ["permission_denied"] * 3


def test_archive_wants_its_direction_and_an_existing_tree(caller: Caller) -> None:
    assert caller.stream("Archive", {"path": "/workspace"})[1]["code"] == "invalid_argument"
    missing = {"path": "missing", "direction": "DOWNLOAD"}
    assert caller.stream("Archive", missing)[1]["code"] == "not_found"


def test_listing_comes_in_pages_and_filtered(caller: Caller, sandbox: DirectSandbox) -> None:
    sandbox.exec("mkdir many; cd many; touch f1.py f2.txt f3.py; mkdir d1 d2; ln -s d1 link")

    def names(token: str = "", **members: Any) -> tuple[list[str], str]:
        body = {"parent": "many", "pageToken": token, **members}
        answer = caller.unary("List", body).raise_for_status().json()
        found = [entry["name"] for entry in answer.get("entries", [])]
        return found, answer.get("nextPageToken", "")

    first, token = names(pageSize=4)
    second, end = names(token, pageSize=4)

    assert (first, second, end) == (["d1", "d2", "f1.py", "f2.txt"], ["f3.py", "link"], "")
    assert names(filter="is_dir=true")[0] == ["d1", "d2"]
    assert names(filter="is_dir=false AND name=*.py")[0] == ["f1.py", "f3.py"]
    for wrong in ({"filter": "size>3"}, {"pageToken": "%"}):
        assert caller.unary("List", {"parent": "many", **wrong}).status_code == 400


def test_stat_tells_links_apart_and_keeps_modes(caller: Caller, sandbox: DirectSandbox) -> None:
    sandbox.exec("echo x > file; chmod 4711 file; ln -s /workspace link")

    file, link = (caller.unary("Stat", {"path": name}).json() for name in ("file", "link"))

    assert file["mode"] == 0o104711
    assert link["mode"] & 0o170000 == 0o120000
    assert not link.get("isDir", False)


class Watching:
    """A `Watch` call in a thread of its own, ready when the constructor returns."""

    def __init__(self, server: Server, sandbox: DirectSandbox, **request: Any) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.error: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._stream = httpx.stream(
            "POST",
            server.url + SERVICE + "Watch",
            content=envelope(json.dumps(request).encode()),
            headers={
                "Content-Type": "application/connect+json",
                "X-Sandbox-Id": sandbox.id,
                "X-Mitos-Watch-Ready": "1",
            },
            timeout=60,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        body = b""
        with self._stream as response:
            for chunk in response.iter_bytes():
                body += chunk
                while len(body) >= 5 and len(body) >= 5 + struct.unpack_from("!BI", body)[1]:
                    flags, length = struct.unpack_from("!BI", body)
                    self._take(flags, json.loads(body[5 : 5 + length]))
                    body = body[5 + length :]
                if self.error is not None:
                    return

    def _take(self, flags: int, message: dict[str, Any]) -> None:
        with self._changed:
            if flags == END_STREAM:
                self.error = message.get("error", {})
            elif "kind" in message:
                found = (message["kind"], message["path"], message.get("newPath", ""))
                self.events.append(found)
            self._changed.notify_all()
        self._ready.set()

    def until(self, *event: str) -> list[tuple[str, str, str]]:
        """The events up to this one."""
        wanted = (*event, "") if len(event) == 2 else event
        with self._changed:
            assert self._changed.wait_for(lambda: wanted in self.events, 20), self.events
            return self.events[: self.events.index(wanted) + 1]  # type: ignore[arg-type]

    def ended(self) -> dict[str, Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.error is not None, 20), self.events
        assert self.error is not None
        return self.error


def test_watch_reports_create_modify_rename_and_delete(
    server: Server, sandbox: DirectSandbox
) -> None:
    sandbox.exec("mkdir w")
    watching = Watching(server, sandbox, path="w")

    sandbox.exec("cd w; : > a; echo x >> a; mv a b; rm b; mkdir sub; : > sub/below; touch last")

    w = "/workspace/w"
    assert watching.until("CREATE", f"{w}/last") == [
        ("CREATE", f"{w}/a", ""),
        ("MODIFY", f"{w}/a", ""),
        ("RENAME", f"{w}/a", f"{w}/b"),
        ("DELETE", f"{w}/b", ""),
        ("CREATE", f"{w}/sub", ""),
        ("CREATE", f"{w}/last", ""),
    ]


def test_watch_below_follows_directories_that_come_later(
    server: Server, sandbox: DirectSandbox
) -> None:
    sandbox.exec("mkdir -p w/old other/moved; : > other/moved/inside")
    watching = Watching(server, sandbox, path="w", recursive=True)
    w = "/workspace/w"

    sandbox.exec(": > w/old/x; mkdir -p w/new/deep; : > w/new/deep/y; mv other/moved w/moved")
    watching.until("CREATE", f"{w}/moved/inside")
    sandbox.exec(
        "mv w/moved w/renamed; echo z > w/renamed/inside; mv w/renamed other/; touch w/last"
    )

    events = watching.until("CREATE", f"{w}/last")
    assert ("CREATE", f"{w}/old/x", "") in events
    assert events.count(("CREATE", f"{w}/new/deep/y", "")) == 1
    assert ("RENAME", f"{w}/moved", f"{w}/renamed") in events
    assert ("MODIFY", f"{w}/renamed/inside", "") in events
    assert ("DELETE", f"{w}/renamed", "") in events


def test_watch_shows_our_own_writes_as_one_change(server: Server, sandbox: DirectSandbox) -> None:
    sandbox.exec("mkdir w")
    watching = Watching(server, sandbox, path="w")

    sandbox.files.write("w/a", "one")
    sandbox.files.write("w/a", "two")

    a = "/workspace/w/a"
    assert watching.until("MODIFY", a) == [("CREATE", a, ""), ("MODIFY", a, "")]


def test_watch_ends_with_its_directory(server: Server, sandbox: DirectSandbox) -> None:
    sandbox.exec("mkdir w")
    watching = Watching(server, sandbox, path="w")

    sandbox.exec("rmdir w")

    watching.until("DELETE", "/workspace/w")
    assert watching.ended() == {}


def test_watch_refuses_what_is_no_directory(caller: Caller, sandbox: DirectSandbox) -> None:
    sandbox.exec(": > file")

    assert caller.stream("Watch", {"path": "missing"})[1]["code"] == "not_found"
    assert caller.stream("Watch", {"path": "file"})[1]["code"] == "failed_precondition"
