"""`mitos serve` as a process, over the fake engine: whom it serves, how it starts and ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from mitos.cli import secret
from mitos.cli.serve import serve
from tests.integration.leftovers import Leftovers

DEADLINE_S = 15


def command(home: Path, *options: str) -> list[str]:
    argv = [sys.executable, "-m", "mitos.cli.main", "serve", "--home", str(home)]
    return [*argv, "--scratch", str(home / "scratch"), "--engine", "fake", *options]


def refusal(home: Path, *options: str) -> Result:
    """A start whose options are refused before anything is started."""
    return CliRunner().invoke(serve, command(home, *options)[4:], prog_name="mitos serve")


def run(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A start that must fail by itself."""
    return subprocess.run(
        command(home, *options), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def key_file(folder: Path, content: bytes) -> Path:
    file = folder / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    return file


@contextlib.contextmanager
def running(
    home: Path, *options: str, port_file: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that listens, and its URL."""
    port_file = port_file or home / "port"
    argv = command(home, "--addr", "127.0.0.1:0", "--port-file", str(port_file), *options)
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (port_file.exists() and port_file.read_text().strip()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the server did not listen in time"
            time.sleep(0.02)
        yield process, f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0", "[::]:0"])
def test_other_machines_are_not_served_without_a_key(tmp_path: Path, address: str) -> None:
    ended = refusal(tmp_path, "--addr", address)

    assert 2 == ended.exit_code
    assert "--api-key-file" in ended.stderr
    assert "--allow-unauthenticated" in ended.stderr


def test_a_key_file_must_hold_a_key(tmp_path: Path) -> None:
    key = key_file(tmp_path, b"\n")

    ended = refusal(tmp_path, "--addr", "127.0.0.1:0", "--api-key-file", str(key))

    assert 2 == ended.exit_code
    assert "empty" in ended.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a\nb\n", "one line"), (b"k" * 20_000, "one line"), (b"k\xff", "ASCII")],
)
def test_a_file_that_holds_no_key_is_explained(tmp_path: Path, content: bytes, said: str) -> None:
    key = key_file(tmp_path, content)

    ended = refusal(tmp_path, "--addr", "127.0.0.1:0", "--api-key-file", str(key))

    assert 2 == ended.exit_code
    assert said in ended.stderr


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_key_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    key = key_file(tmp_path, b"mitos_live_secret\n")
    key.chmod(mode)

    ended = refusal(tmp_path, "--addr", "127.0.0.1:0", "--api-key-file", str(key))

    assert 2 == ended.exit_code
    assert f"chmod 600 {key}" in " ".join(ended.stderr.split())
    assert "mitos_live_secret" not in ended.output


def test_a_key_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_text, args=("mitos_live_secret\n",))
    writer.start()

    assert "mitos_live_secret" == secret.api_key(pipe)
    writer.join(DEADLINE_S)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:http", "127.0.0.1:65536"])
def test_an_address_must_be_one(tmp_path: Path, address: str) -> None:
    ended = refusal(tmp_path, "--addr", address)

    assert 2 == ended.exit_code
    assert "--addr" in ended.stderr


def test_an_engine_must_be_one(tmp_path: Path) -> None:
    ended = run(tmp_path, "--engine", "qemu")

    assert 2 == ended.returncode
    assert all(name in ended.stderr for name in ("auto", "gvisor", "fake"))


def test_an_engine_that_isolates_nothing_is_told(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        health = httpx.get(f"{url}/v1/health", trust_env=False).json()
        ready = httpx.get(f"{url}/readyz", trust_env=False).text

    assert health["mock"] is True
    assert ready == "ok (mock)\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, url):
        assert 200 == httpx.get(f"{url}/v1/health", trust_env=False).status_code
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE_S)

    assert 0 == process.returncode, said
    assert "mitos: stopping" in said


def test_a_port_in_use_is_explained(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        ended = run(tmp_path, "--addr", url.removeprefix("http://"))

    assert 1 == ended.returncode
    assert "--addr" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_home_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    ended = refusal(tmp_path / "file", "--addr", "127.0.0.1:0")

    assert 1 == ended.exit_code
    assert "--home" in ended.stderr


def test_a_secret_that_is_cut_short_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "preview-secret").touch()

    ended = refusal(tmp_path, "--addr", "127.0.0.1:0")

    assert 1 == ended.exit_code
    assert "preview-secret is damaged" in ended.stderr


SECRETS = ("preview-secret", "state.db", "state.db-wal", "state.db-shm", "server.lock")
FOLDERS = ("checkpoints", "hibernated", "snapshots", "scratch")


def modes(home: Path) -> dict[str, int]:
    return {name: (home / name).stat().st_mode & 0o777 for name in (*SECRETS, *FOLDERS)}


def test_a_home_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    home = tmp_path / "home"
    expected = dict.fromkeys(SECRETS, 0o600) | dict.fromkeys(FOLDERS, 0o700)
    before = os.umask(0)
    try:
        with running(home, port_file=tmp_path / "port"):
            found, of_home = modes(home), home.stat().st_mode & 0o777
    finally:
        os.umask(before)

    assert (found, of_home) == (expected, 0o700)


def test_what_is_ours_in_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    """The home itself stays as its owner has made it, and so does what is not ours."""
    with running(tmp_path):
        pass
    (tmp_path / "notes").touch()
    kept = [tmp_path / name for name in SECRETS[:-1]]
    for place in (tmp_path, *(place for place in tmp_path.iterdir() if place.is_dir())):
        place.chmod(0o755)
    for file in (*kept, tmp_path / "notes"):
        file.touch()
        file.chmod(0o644)
    (tmp_path / "port").unlink()

    with running(tmp_path):
        found = modes(tmp_path)
        others = [(tmp_path / name).stat().st_mode & 0o777 for name in (".", "notes")]

    assert found == dict.fromkeys(SECRETS, 0o600) | dict.fromkeys(FOLDERS, 0o700)
    assert others == [0o755, 0o644]


def test_a_home_keeps_its_secret(tmp_path: Path) -> None:
    for _ in range(2):
        with running(tmp_path):
            secret = (tmp_path / "preview-secret").read_bytes()

    assert 64 == len(secret)
    assert secret == (tmp_path / "preview-secret").read_bytes()
    assert 0o600 == (tmp_path / "preview-secret").stat().st_mode & 0o777


def test_a_home_has_one_server(tmp_path: Path) -> None:
    with running(tmp_path):
        ended = run(tmp_path, "--addr", "127.0.0.1:0")

    assert 1 == ended.returncode
    assert "Traceback" not in ended.stderr


def test_only_known_hosts_and_origins_are_served(tmp_path: Path) -> None:
    options = ("--allow-host", "box.internal", "--allow-host", "10.8.8.8")
    options += ("--allow-origin", "https://console.example.com")
    with running(tmp_path, *options) as (_, url):

        def status(**headers: str) -> int:
            return httpx.get(f"{url}/v1/sandboxes", headers=headers, trust_env=False).status_code

        for host in ("localhost", "box.internal:8080", "10.8.8.8"):
            assert 200 == status(host=host)
        for host in ("evil.example", "a.box.internal", "10.8.8.9"):
            assert 403 == status(host=host)
        for origin in (url, "https://console.example.com"):
            assert 200 == status(origin=origin)
        for origin in ("https://evil.example", "http://console.example.com", "null"):
            assert 403 == status(origin=origin)


def test_the_address_it_listens_on_is_served_without_a_key(tmp_path: Path) -> None:
    address = ("--addr", "0.0.0.0:0", "--allow-unauthenticated")
    with running(tmp_path, *address) as (_, url):
        for host, expected in (("0.0.0.0", 200), ("127.0.0.1", 200), ("10.8.8.8", 403)):
            answer = httpx.get(f"{url}/v1/sandboxes", headers={"Host": host}, trust_env=False)
            assert expected == answer.status_code


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--allow-host", text) for text in ("", "a b", "http://box", "box:8080", "box/")),
        *(
            ("--allow-origin", text)
            for text in ("", "null", "*", "box", "https://box/", "https://")
        ),
    ],
)
def test_hosts_and_origins_must_be_what_they_are_called(
    tmp_path: Path, option: str, value: str
) -> None:
    ended = refusal(tmp_path, "--addr", "127.0.0.1:0", option, value)

    assert 2 == ended.exit_code
    assert option in ended.stderr


def test_the_key_is_asked_for_and_never_logged(tmp_path: Path) -> None:
    key = key_file(tmp_path, b"mitos_live_secret\n")
    with running(tmp_path, "--api-key-file", str(key)) as (process, url):
        without = httpx.get(f"{url}/v1/sandboxes", trust_env=False)
        header = {"Authorization": "Bearer mitos_live_secret"}
        with_key = httpx.get(f"{url}/v1/sandboxes", headers=header, trust_env=False)
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)

    assert (401, 200) == (without.status_code, with_key.status_code)
    assert "/v1/sandboxes" in said
    assert "mitos_live_secret" not in said


@pytest.mark.real
def test_a_signal_in_the_middle_of_a_build_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("root filesystems are built as root on Debian")
    leftovers = Leftovers(tmp_path)
    process = subprocess.Popen(
        command(tmp_path, "--addr", "127.0.0.1:0", "--prepare", "base"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("mitos: ")
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait(DEADLINE_S)

    assert 1 == process.returncode, said
    assert "Traceback" not in said
    assert leftovers.found() == []


def test_a_port_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    port_file = tmp_path / "missing" / "port"

    ended = run(tmp_path, "--addr", "127.0.0.1:0", "--port-file", str(port_file))

    assert 1 == ended.returncode
    assert "--port-file" in ended.stderr
    assert "Traceback" not in ended.stderr
