"""What goes wrong gets the catalogue's code, status and remediation; then the next call works."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import mitos
from mitos import AgentRunError, DirectSandbox
from tests.integration.conftest import Server, serve
from tests.integration.leftovers import Leftovers

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

JSON_STREAM = {"Content-Type": "application/connect+json"}


@pytest.fixture(autouse=True)
def the_next_call_works(server: Server) -> Iterator[None]:
    """After each failure the server still creates, runs and ends a sandbox."""
    yield
    with server.create() as fresh:
        assert fresh.exec("echo ok").stdout == "ok\n"


def assert_error(error: AgentRunError, code: str, status: int | None) -> None:
    assert (code, status) == (error.code, error.status), error
    assert error.remediation


def envelope(response: httpx.Response) -> dict[str, object]:
    error = response.json()["error"]
    assert error["message"]
    assert error["remediation"]
    return dict(error)


def end_of_stream(body: bytes) -> dict[str, object]:
    """The JSON of a Connect stream's last frame."""
    last: dict[str, object] | None = None
    while body:
        flags, length = body[0], int.from_bytes(body[1:5], "big")
        if flags & 2:
            last = json.loads(body[5 : 5 + length])
        body = body[5 + length :]
    assert last is not None, "the stream has no end frame"
    return last


def test_unknown_sandbox(server: Server) -> None:
    gone = server.create()
    gone.terminate()

    with pytest.raises(AgentRunError) as caught:
        gone.exec("true")

    assert isinstance(caught.value, mitos.NotFoundError)
    assert_error(caught.value, "not_found", 404)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/fork")):
        url = f"{server.url}/v1/sandboxes/nobody{path}"
        response = httpx.request(method, url, json={"id": "child"} if path else None)
        assert (response.status_code, envelope(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize("bad", ["../x", "a/b", "-x", "", "a" * 65, "a\n", "a b"])
def test_id_that_does_not_match_the_pattern(server: Server, bad: str) -> None:
    with pytest.raises(AgentRunError) as caught:
        mitos.create("python", base_url=server.url, id=bad)
    assert caught.value.code == "invalid_sandbox_id"

    response = httpx.post(f"{server.url}/v1/fork", json={"template": "python", "id": bad})
    assert (response.status_code, envelope(response)["code"]) == (400, "invalid_input")


def test_missing_file(sandbox: DirectSandbox) -> None:
    with pytest.raises(mitos.NotFoundError) as caught:
        sandbox.files.read("/does/not/exist")

    assert_error(caught.value, "not_found", 404)


def test_file_operations_on_the_wrong_type(sandbox: DirectSandbox) -> None:
    with pytest.raises(AgentRunError) as caught:
        sandbox.files.read("/workspace")
    assert caught.value.status == 400

    with pytest.raises(AgentRunError) as caught:
        sandbox.files.write("/workspace", "x")
    assert caught.value.status == 400
    assert caught.value.remediation


def test_body_over_the_limit(server: Server) -> None:
    body = b'{"id": "' + b"x" * (33 << 20) + b'"}'

    response = httpx.post(f"{server.url}/v1/templates", content=body, timeout=60)

    assert (response.status_code, envelope(response)["code"]) == (413, "body_too_large")


def test_body_that_is_not_json(server: Server) -> None:
    response = httpx.post(f"{server.url}/v1/templates", content=b'{"id": ')

    assert (response.status_code, envelope(response)["code"]) == (400, "invalid_json")


def test_timeout_over_the_ceiling(server: Server, sandbox: DirectSandbox) -> None:
    with pytest.raises(mitos.TimeoutTooLargeError):
        sandbox.exec("true", timeout=86_401)

    body = {"sandbox": sandbox.id, "timeout_seconds": 86_401}
    response = httpx.post(f"{server.url}/v1/set_timeout", json=body)
    error = envelope(response)
    assert (response.status_code, error["code"]) == (400, "timeout_too_large")
    assert {"sandbox": sandbox.id, "requested_s": 86_401, "max_timeout_s": 86_400} == error[
        "context"
    ]
    payload = json.dumps({"command": "true", "timeoutSeconds": 86_401}).encode()
    answer = call_stream(server, sandbox.id, frame(payload))
    assert error_code(answer) == "invalid_argument"


def test_command_not_found(server: Server, sandbox: DirectSandbox) -> None:
    through_shell = sandbox.exec("no-such-program-here")
    assert through_shell.exit_code == 127
    assert "not found" in through_shell.stderr

    payload = json.dumps({"command": "no-such-program-here", "args": ["x"]}).encode()
    body = call_stream(server, sandbox.id, frame(payload)).content
    first = json.loads(body[5 : 5 + int.from_bytes(body[1:5], "big")])
    assert first["exit"]["exitCode"] == 1
    assert first["exit"]["error"]
    assert end_of_stream(body) == {}


def test_working_directory_that_does_not_exist(server: Server, sandbox: DirectSandbox) -> None:
    payload = json.dumps({"command": "pwd", "cwd": "/no/such/place"}).encode()

    body = call_stream(server, sandbox.id, frame(payload)).content

    first = json.loads(body[5 : 5 + int.from_bytes(body[1:5], "big")])
    assert first["exit"]["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x00\x00",
        b"\x00\x00\x00\x00\x10{}",
        b"\x00\xff\xff\xff\xff{}",
        b"\x00\x00\x00\x00\x05{nope",
        b"\x01\x00\x00\x00\x02{}",
        b"",
    ],
    ids=["short-header", "short-payload", "huge-length", "not-json", "compressed", "empty"],
)
def test_broken_connect_frame(server: Server, sandbox: DirectSandbox, body: bytes) -> None:
    answer = call_stream(server, sandbox.id, body)

    assert error_code(answer) in {
        "invalid_argument",
        "unimplemented",
        "resource_exhausted",
        "internal",
    }


def call_stream(server: Server, sandbox_id: str, body: bytes) -> httpx.Response:
    return httpx.post(
        f"{server.url}/sandbox.v1.Sandbox/ExecStream",
        headers={**JSON_STREAM, "X-Sandbox-Id": sandbox_id},
        content=body,
        timeout=20,
    )


def frame(payload: bytes) -> bytes:
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def error_code(response: httpx.Response) -> object:
    """The Connect code of a failed stream, wherever the failure was found."""
    if response.status_code != 200:
        return response.json()["code"]
    error = end_of_stream(response.content)["error"]
    assert isinstance(error, dict)
    return error["code"]


def test_wrong_key(home: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("mitos_live_right\n")
    key_file.chmod(0o600)
    own = second_home(home, tmp_path)
    with serve(
        own, tmp_path / "server.log", "--engine", "fake", "--api-key-file", str(key_file)
    ) as guarded:
        with pytest.raises(mitos.UnauthorizedError) as caught:
            mitos.create("python", base_url=guarded.url, api_key="mitos_live_wrong")
        assert_error(caught.value, "unauthorized", 401)
        with mitos.create("python", base_url=guarded.url, api_key="mitos_live_right") as good:
            intruder = DirectSandbox(
                good.id, good.template, good.endpoint, guarded.url, 1.0, api_key="mitos_live_wrong"
            )
            with pytest.raises(mitos.UnauthorizedError):
                intruder.exec("true")
            assert good.exec("echo ok").stdout == "ok\n"
        log = guarded.log.read_text()
    assert "mitos_live" not in log


def second_home(home: Path, tmp_path: Path) -> Path:
    """A home for another server, with the same cached downloads."""
    own = tmp_path / "home"
    own.mkdir()
    for name in ("bin", "rootfs"):
        (own / name).symlink_to(home / name)
    return own


def test_unknown_template(server: Server) -> None:
    with pytest.raises(mitos.NotFoundError) as caught:
        server.create("no-such-image")

    assert_error(caught.value, "not_found", 404)
    assert "python" in caught.value.remediation


def test_template_that_fails_to_build(home: Path, tmp_path: Path) -> None:
    """A root filesystem that is not there, and one whose machine cannot boot."""
    own = second_home(home, tmp_path)
    hollow = tmp_path / "hollow.tar"
    hollow.write_bytes(b"this is no archive")
    (own / "templates.toml").write_text(f'[templates.broken]\nrootfs = "{hollow}"\n')
    leftovers = Leftovers(own)
    with serve(own, tmp_path / "server.log", "--engine", "gvisor") as running:
        with pytest.raises(AgentRunError) as caught:
            running.create("broken")
        assert_error(caught.value, "build_failed", 422)
        assert {"step", "step_kind"} <= caught.value.context.keys()
        assert [row["id"] for row in mitos.SandboxServer(running.url).list_templates()] == []
        with running.create("python") as good:
            assert good.exec("echo ok").stdout == "ok\n"
    assert leftovers.found() == []


def test_full_disk(home: Path, tmp_path: Path) -> None:
    """A fork whose snapshot does not fit fails with a clear code; the source runs on."""
    own = second_home(home, tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        options = ("--engine", "gvisor", "--scratch", str(small / "scratch"))
        with serve(own, tmp_path / "server.log", *options) as running:
            with running.create("python") as source:
                with pytest.raises(AgentRunError) as caught:
                    source.fork(1)
                assert_error(caught.value, "quota_exceeded", 429)
                assert "space" in (caught.value.cause + str(caught.value)).lower()
                assert source.exec("echo ok").stdout == "ok\n"
            assert list((small / "scratch").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_full_disk_inside_a_sandbox_is_the_guests_own_matter(sandbox: DirectSandbox) -> None:
    """Files count against the sandbox's memory; past the limit it is ended, and says why."""
    with pytest.raises(AgentRunError):
        sandbox.exec("head -c 2G /dev/zero > /workspace/big", timeout=60)

    with pytest.raises(mitos.NotFoundError) as caught:
        sandbox.exec("true")
    assert "memory" in caught.value.cause


@pytest.mark.parametrize("version", ["", "release-20221219.0"], ids=["missing", "too-old"])
def test_runsc_missing_or_too_old(tmp_path: Path, version: str) -> None:
    """The server refuses to start, and says what to run."""
    own = tmp_path / "home"
    (own / "bin").mkdir(parents=True)
    if version:
        old = own / "bin" / "mitos-engine"
        old.write_text(f"#!/bin/sh\necho 'runsc version {version}'\n")
        old.chmod(old.stat().st_mode | stat.S_IXUSR)
    argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--addr", "127.0.0.1:0"]
    result = subprocess.run(
        [*argv, "--home", str(own), "--engine", "gvisor"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": "/usr/bin:/bin", "MITOS_RUNSC": ""},
        check=False,
    )

    assert result.returncode == 1
    assert "pip install 'mitos-run[server]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_deadline_really_ends_a_sandbox(server: Server) -> None:
    sandbox = server.create()
    deadline = sandbox.set_timeout(1)
    time.sleep(max(deadline - time.time(), 0) + 1.5)

    with pytest.raises(mitos.IdleTimeoutError) as caught:
        sandbox.exec("true")

    assert "set_timeout" in caught.value.remediation
    assert [] == mitos.SandboxServer(server.url).list_sandboxes()
