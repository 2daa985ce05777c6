"""Files and folders in and out of a sandbox, with what is shown meanwhile."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import DEADLINE_S, CommandLine

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture
def box(mitos: CommandLine) -> Iterator[str]:
    """A sandbox's id."""
    sandbox_id = mitos.create()
    yield sandbox_id
    mitos.run("sandbox", "terminate", sandbox_id)


def test_a_file_goes_in_and_comes_out(mitos: CommandLine, box: str, tmp_path: Path) -> None:
    source = tmp_path / "tool.sh"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o755)

    put = mitos.run("upload", str(source), f"{box}:/opt/tools/")
    got = mitos.run("download", f"{box}:/opt/tools/tool.sh", str(tmp_path / "back"))

    assert (put.returncode, put.stdout) == (0, "")
    assert put.stderr.startswith(f"{source} -> {box}:/opt/tools/tool.sh: 3.0 MB in ")
    assert got.returncode == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    listed = mitos.run("sandbox", "exec", box, "stat -c %a /opt/tools/tool.sh")
    assert listed.stdout == "755\n"


def test_a_folder_goes_in_and_comes_out(mitos: CommandLine, box: str, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_text("x")
    (tmp_path / "in/empty").write_text("")

    assert mitos.run("upload", str(tmp_path / "in"), f"{box}:project").returncode == 0
    got = mitos.run("download", f"{box}:/workspace/project", str(tmp_path / "out"))

    assert got.returncode == 0, got.stderr
    assert (tmp_path / "out/deep/file").read_text() == "x"
    assert (tmp_path / "out/empty").read_text() == ""


def test_a_download_goes_into_a_folder_that_is_there(
    mitos: CommandLine, box: str, tmp_path: Path
) -> None:
    mitos.run("sandbox", "exec", box, "echo hello >note")

    assert mitos.run("download", f"{box}:note", str(tmp_path)).returncode == 0

    assert (tmp_path / "note").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("download", "{box}:missing", "{tmp}/x"), 3, "not_found"),
        (("download", "nobody:file", "{tmp}/x"), 3, "nobody"),
        (("download", "no-path", "{tmp}/x"), 2, "ID:PATH"),
        (("upload", "{tmp}/missing", "{box}:x"), 2, "does not exist"),
        (("upload", "{tmp}", "{box}:/etc/x"), 1, "outside /workspace"),
    ],
)
def test_a_transfer_that_fails_leaves_nothing_here(
    mitos: CommandLine,
    box: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    exit_code: int,
    says: str,
) -> None:
    named = [text.format(box=box, tmp=tmp_path) for text in arguments]

    result = mitos.run(*named)

    assert result.returncode == exit_code, result.stderr
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_leaves_the_old_file(
    mitos: CommandLine, box: str, tmp_path: Path
) -> None:
    target = tmp_path / "big"
    target.write_text("old")
    mitos.run("sandbox", "exec", box, "truncate -s 2G big")
    with subprocess.Popen(
        mitos.argv("download", f"{box}:big", str(target)), env=mitos.environment
    ) as process:
        deadline = time.monotonic() + DEADLINE_S
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("big", "old")]


def test_a_terminal_sees_a_bar(mitos: CommandLine, box: str, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(20_000_000))
    leader, follower = pty.openpty()
    environment = {**mitos.environment, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        mitos.argv("upload", str(source), f"{box}:big"), env=environment, stderr=follower
    ) as process:
        os.close(follower)
        shown = _read_all(leader)
        assert process.wait(DEADLINE_S) == 0

    assert "20.0/20.0 MB" in shown
    assert "━━━━" in shown
    assert "MB/s" in shown


def _read_all(descriptor: int) -> str:
    """What comes from a terminal until its last program has closed it."""
    shown = b""
    deadline = time.monotonic() + DEADLINE_S
    try:
        while select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            shown += os.read(descriptor, 65536)
    except OSError:  # EIO: nobody has it open any more
        pass
    finally:
        os.close(descriptor)
    return shown.decode("utf-8", "replace")
