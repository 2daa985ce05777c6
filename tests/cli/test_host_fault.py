"""A server as a process on a disk that is full, and without descriptors: the command line ends all.

`tests/node/state/test_host_fault.py` has every request under every fault.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.test_serve import DEADLINE_S, running

MANY = 2000


@pytest.fixture
def small_home(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a small disk")
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", home], check=True)
    try:
        yield home
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def serve_template(home: Path) -> None:
    (home / "root" / "etc").mkdir(parents=True)
    (home / "templates.toml").write_text(f'[templates.python]\nrootfs = "{home}/root"\n')


def create(client: httpx.Client, sandbox: str) -> httpx.Response:
    return client.post("/v1/fork", json={"template": "python", "id": sandbox})


def refusal_of(client: httpx.Client) -> dict[str, object]:
    """The error of the first create that is refused."""
    for number in range(MANY):
        answer = create(client, f"sb-{number}")
        if answer.status_code != 200:
            assert 429 == answer.status_code
            error = answer.json()["error"]
            assert isinstance(error, dict)
            return error
    raise AssertionError("nothing was refused")


def terminate(url: str, sandbox: str) -> int:
    argv = [sys.executable, "-m", "mitos.cli.main", "sandbox", "terminate", sandbox]
    return subprocess.run(
        argv, env={**os.environ, "MITOS_BASE_URL": url}, timeout=DEADLINE_S, check=False
    ).returncode


def end_all(client: httpx.Client) -> None:
    url = str(client.base_url)
    first, *rest = (row["id"] for row in client.get("/v1/sandboxes").json())
    assert 0 == terminate(url, first)
    for sandbox in rest:
        answer = httpx.delete(f"{url}/v1/sandboxes/{sandbox}", trust_env=False)
        assert 200 == answer.status_code, answer.text
    assert [] == client.get("/v1/sandboxes").json()


def test_all_can_be_ended_on_a_full_disk(small_home: Path, tmp_path: Path) -> None:
    serve_template(small_home)
    with (
        running(small_home, port_file=tmp_path / "port") as (_, url),
        httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE_S) as client,
    ):
        client.post("/v1/templates", json={"id": "python"}).raise_for_status()
        create(client, "first").raise_for_status()
        filler = small_home / "filler"
        with filler.open("wb") as stream:
            free = os.fstatvfs(stream.fileno())
            os.posix_fallocate(stream.fileno(), 0, free.f_bavail * free.f_frsize)
        error = refusal_of(client)
        end_all(client)
        filler.unlink()
        create(client, "last").raise_for_status()

    assert ("quota_exceeded", {"dimension": "disk"}) == (error["code"], error["context"])


def test_all_can_be_ended_when_descriptors_run_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    serve_template(home)
    with (
        running(home, port_file=tmp_path / "port") as (process, url),
        httpx.Client(base_url=url, trust_env=False, timeout=DEADLINE_S) as client,
    ):
        client.post("/v1/templates", json={"id": "python"}).raise_for_status()
        create(client, "first").raise_for_status()
        taken = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        usual = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (taken + 20, usual[1]))
        error = refusal_of(client)
        end_all(client)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, usual)
        create(client, "last").raise_for_status()

    assert ("quota_exceeded", {"dimension": "descriptors"}) == (error["code"], error["context"])
