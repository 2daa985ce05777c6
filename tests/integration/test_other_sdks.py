"""Code in the style of other SDKs' first pages, through our shims, on real sandboxes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mitos
from mitos import daytona, e2b
from mitos.errors import NotFoundError
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def at_our_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user sets once."""
    monkeypatch.setenv("MITOS_BASE_URL", server.url)
    monkeypatch.setenv("MITOS_API_KEY", "")


# E2B


def test_e2b_first_steps() -> None:
    with e2b.Sandbox.create(metadata={"a": "b"}, timeout=600, secure=True) as sandbox:
        execution = sandbox.run_code("x = 1; x += 1; x")
        assert execution.text == "2"
        result = sandbox.commands.run('echo "hello from e2b code"')
        assert (result.stdout, result.exit_code) == ("hello from e2b code\n", 0)
        sandbox.files.make_dir("/workspace/notes")
        sandbox.files.write("/workspace/notes/a.txt", "one")
        assert sandbox.files.read("/workspace/notes/a.txt") == "one"
        assert [entry.name for entry in sandbox.files.list("/workspace/notes")] == ["a.txt"]
        assert sandbox.files.exists("/workspace/notes/a.txt")
        sandbox.files.remove("/workspace/notes")
        assert not sandbox.files.exists("/workspace/notes")
        assert sandbox.set_timeout(300) - time.time() <= 300
        assert sandbox.sandbox_id in sandbox.get_host(8000)


def test_e2b_finds_a_sandbox_again() -> None:
    with e2b.Sandbox.create() as sandbox:
        sandbox.files.write("/tmp/a", "x")
        again = e2b.Sandbox.connect(sandbox.sandbox_id)
        assert again.files.read("/tmp/a") == "x"
        (listed,) = e2b.Sandbox.list()
        assert (listed.sandbox_id, listed.template_id) == (sandbox.sandbox_id, "python")
    with pytest.raises(NotFoundError) as caught:
        e2b.Sandbox.connect("nope")
    assert (caught.value.code, caught.value.status) == ("not_found", 404)


def test_e2b_kill_ends_the_sandbox(server: Server) -> None:
    sandbox = e2b.Sandbox.create()
    sandbox.kill()

    assert mitos.SandboxServer(server.url).list_sandboxes() == []


def test_e2b_creates_through_its_seam(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    made = server.create()
    monkeypatch.setattr(e2b, "_create_direct", lambda *_args, **_options: made)

    with e2b.Sandbox.create("anything") as sandbox:
        assert sandbox.sandbox is made


# Daytona


@pytest.fixture
def sandbox() -> Iterator[daytona.Sandbox]:
    with daytona.Daytona().create() as created:
        yield created


def test_daytona_first_steps(sandbox: daytona.Sandbox) -> None:
    response = sandbox.process.code_run('print("Hello World from code!")')
    assert (response.exit_code, response.result) == (0, "Hello World from code!\n")
    assert sandbox.process.code_run("1 + 1").result == "2"
    assert sandbox.process.code_run("1/0").exit_code == 1
    response = sandbox.process.exec("echo $A; pwd", cwd="/tmp", env={"A": "it's"}, timeout=10)
    assert (response.exit_code, response.result) == (0, "it's\n/tmp\n")
    assert response.artifacts is not None
    assert response.artifacts.stdout == response.result


def test_daytona_files(sandbox: daytona.Sandbox, tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(b"\x00\xff")
    sandbox.fs.create_folder("/workspace/data", "755")
    sandbox.fs.upload_file(b"content", "/workspace/data/a.txt")
    sandbox.fs.upload_file(str(local), "/workspace/data/b.bin")
    with pytest.raises(TypeError):
        sandbox.fs.upload_file(1, "/workspace/data/c")  # type: ignore[arg-type]

    assert sandbox.fs.download_file("/workspace/data/a.txt") == b"content"
    assert sandbox.fs.download_file("/workspace/data/b.bin", str(tmp_path / "back")) is None
    assert (tmp_path / "back").read_bytes() == b"\x00\xff"
    assert [entry.name for entry in sandbox.fs.list_files("/workspace/data")] == ["a.txt", "b.bin"]
    assert sandbox.fs.get_file_info("/workspace/data/a.txt").size == 7
    assert sandbox.fs.get_file_info("data/a.txt").size == 7
    assert sandbox.fs.get_file_info("data").is_dir
    sandbox.fs.delete_file("/workspace/data/a.txt")
    with pytest.raises(NotFoundError):
        sandbox.fs.get_file_info("/workspace/data/a.txt")


def test_daytona_life(sandbox: daytona.Sandbox) -> None:
    client = daytona.Daytona()
    sandbox.process.code_run("x = 41")
    client.stop(sandbox)
    client.start(sandbox)
    (child,) = sandbox.fork()
    try:
        assert child.process.code_run("x + 1").result == "42"
        assert {each.id for each in client.list()} == {sandbox.id, child.id}
        assert client.get(child.id).id == child.id
    finally:
        client.delete(child)
    with pytest.raises(NotFoundError):
        client.get(child.id)
    link = sandbox.get_preview_link(3000)
    assert link.token
    assert link.url.endswith(link.token)


def test_daytona_chooses_the_image(server: Server) -> None:
    configured = daytona.Daytona(daytona.DaytonaConfig(server_url=server.url, api_key="", x=1))
    params = daytona.CreateSandboxFromImageParams(image="python", snapshot="no", language="no")

    with configured.create(params) as sandbox:
        assert sandbox.sandbox.template == "python"
