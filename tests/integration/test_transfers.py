"""Large files and whole trees through the SDK, on real sandboxes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mitos
from mitos import DirectSandbox
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

HUGE_BYTES = 4 << 30
"""More than 32 bits count."""

LARGE = pytest.mark.parametrize(
    "size",
    [
        pytest.param(256 << 20, id="256 MiB"),
        pytest.param(HUGE_BYTES, id="4 GiB", marks=pytest.mark.soak),
    ],
)

PIECE = bytes(1 << 20)
GROWTH_LIMIT_BYTES = 64 << 20
"""What a process may grow by in a transfer: far less than the file, more than buffers."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def flat(*pids: int) -> Iterator[None]:
    """Fails when one of the processes grows while the block runs; looked at 20 times a second."""
    before = {pid: resident_bytes(pid) for pid in pids}
    most, stopped = dict(before), threading.Event()

    def sample() -> None:
        while not stopped.wait(0.05):
            for pid in pids:
                most[pid] = max(most[pid], resident_bytes(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        stopped.set()
        sampler.join()
    grown = {pid: most[pid] - before[pid] for pid in pids}
    assert max(grown.values()) < GROWTH_LIMIT_BYTES, grown


class Zeros(io.RawIOBase):
    """A large file that takes no space."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        size = min(len(view), self._left, len(PIECE))
        view[:size] = PIECE[:size]
        self._left -= size
        return size


class Counter(io.RawIOBase):
    """Takes bytes and keeps none."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = len(data)  # type: ignore[arg-type]
        self.size += taken
        return taken


def agent_resident_bytes(sandbox: DirectSandbox) -> int:
    return int(sandbox.exec("grep VmRSS /proc/1/status | tr -dc 0-9").stdout) * 1024


@LARGE
@pytest.mark.timeout(900)
def test_a_large_file_goes_in_with_flat_memory(
    server: Server, sandbox: DirectSandbox, size: int
) -> None:
    """Into the null device: the sandbox's files are in its memory, which has no room for it."""
    before = agent_resident_bytes(sandbox)

    with flat(server.process.pid, os.getpid()):
        sandbox.files.upload(Zeros(size), "/dev/null")

    assert agent_resident_bytes(sandbox) - before < GROWTH_LIMIT_BYTES


@LARGE
@pytest.mark.timeout(900)
def test_a_large_file_comes_out_with_flat_memory(
    server: Server, sandbox: DirectSandbox, size: int
) -> None:
    """From a file that is one hole, which takes no memory of the sandbox."""
    sandbox.exec(f"truncate -s {size} huge")
    before, sink = agent_resident_bytes(sandbox), Counter()

    with flat(server.process.pid, os.getpid()):
        received = sandbox.files.download("huge", sink)

    assert received == sink.size == size
    assert agent_resident_bytes(sandbox) - before < GROWTH_LIMIT_BYTES


def test_files_go_up_and_come_down_by_path(sandbox: DirectSandbox, tmp_path: Path) -> None:
    source, target, seen = tmp_path / "in", tmp_path / "out", []
    source.write_bytes(os.urandom(3_000_000))

    sandbox.files.upload(source, "deep/er/file", mode=0o600)
    sandbox.files.download("deep/er/file", target, on_progress=seen.append)

    assert target.read_bytes() == source.read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] == 3_000_000
    assert sandbox.exec("stat -c %a deep/er/file").stdout == "600\n"


def test_a_download_that_fails_leaves_the_old_file(sandbox: DirectSandbox, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")

    with pytest.raises(mitos.NotFoundError):
        sandbox.files.download("missing", target)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


def test_a_tree_goes_up_and_comes_down_whole(sandbox: DirectSandbox, tmp_path: Path) -> None:
    source, target, seen = tmp_path / "in", tmp_path / "out", []
    (source / "deep/empty").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(17 << 20))
    (source / "link").symlink_to("large")
    for number in range(300):
        (source / "deep" / f"f{number}").write_text(str(number) * 50)
    (source / "deep/f0").chmod(0o751)

    sent = sandbox.files.upload_dir(source, "/workspace/tree", on_progress=seen.append)
    sandbox.exec("ln -s deep tree/inner")
    sandbox.files.download_dir("/workspace/tree", target)

    (source / "link").unlink()
    assert digests(target) == digests(source)
    assert (target / "inner").readlink() == Path("deep")
    assert (target / "deep/empty").is_dir()
    assert (target / "deep/f0").stat().st_mode & 0o777 == 0o751
    assert seen[-1] == sent == sum(p.stat().st_size for p in source.rglob("*") if p.is_file())


def test_an_empty_folder_goes_up_too(sandbox: DirectSandbox, tmp_path: Path) -> None:
    assert sandbox.files.upload_dir(tmp_path, "/workspace/empty") == 0

    assert sandbox.files.list("/workspace/empty") == []


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "inner" not in path.relative_to(folder).parts
    }


def test_a_hostile_tree_writes_nothing_outside_the_target(
    sandbox: DirectSandbox, tmp_path: Path
) -> None:
    sandbox.exec("mkdir evil; ln -s /etc evil/link")

    with pytest.raises(mitos.AgentRunError, match="cannot be unpacked safely"):
        sandbox.files.download_dir("evil", tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_a_large_tree_comes_down_too(sandbox: DirectSandbox, tmp_path: Path) -> None:
    made = "mkdir -p big/a; cd big; head -c 70M /dev/urandom >a/file; ln -s a/file link; echo x >y"
    sandbox.exec(made)
    sums = sandbox.exec("cd big && sha256sum a/file y").stdout.split()[::2]
    seen: list[int] = []

    sandbox.files.download_dir("big", tmp_path / "out", on_progress=seen.append)

    found = digests(tmp_path / "out")
    assert [found["a/file"], found["y"]] == sums
    assert (tmp_path / "out/link").readlink() == Path("a/file")
    assert seen[-1] > 70 << 20


@pytest.mark.parametrize(
    ("before", "limit", "says"),
    [
        ("truncate -s 65M big/file", 65 << 20, "bytes came"),
        ("truncate -s 65M big/file; rm $(which tar)", 4 << 30, "cannot be archived"),
    ],
)
def test_a_tree_that_cannot_come_leaves_nothing_here(
    sandbox: DirectSandbox, tmp_path: Path, before: str, limit: int, says: str
) -> None:
    assert sandbox.exec(f"mkdir big; {before}").exit_code == 0

    with pytest.raises(mitos.AgentRunError, match=says) as caught:
        sandbox.files.download_dir("big", tmp_path / "out", max_bytes=limit)

    assert caught.value.remediation
    assert not (tmp_path / "out").exists()


def test_a_sandbox_that_ends_in_mid_read_fails_the_read(server: Server) -> None:
    sandbox = server.create()
    sandbox.exec("truncate -s 4G huge")
    sink, ended = Counter(), []

    def end(received: int) -> None:
        if not ended and received > 1 << 20:
            ended.append(threading.Thread(target=sandbox.terminate))
            ended[0].start()

    with pytest.raises(mitos.AgentRunError) as caught:
        sandbox.files.download("huge", sink, on_progress=end)

    ended[0].join(20)
    assert caught.value.code in ("not_found", "canceled", "internal", "sandbox_terminated")
    assert 0 < sink.size < HUGE_BYTES


def test_changes_are_seen_from_the_start_of_the_block(sandbox: DirectSandbox) -> None:
    with sandbox.files.watch(recursive=True, quiet_s=20) as changes:
        sandbox.files.write("a/b", "x")
        found = [next(changes), next(changes)]

    assert found == [
        mitos.types.FileEvent("CREATE", "/workspace/a"),
        mitos.types.FileEvent("CREATE", "/workspace/a/b"),
    ]


def test_changes_are_seen_by_the_asynchronous_form(server: Server) -> None:
    async def first() -> mitos.types.FileEvent:
        async with (
            await mitos.aio.create("python", base_url=server.url, api_key="") as sandbox,
            sandbox.files.watch(quiet_s=20) as changes,
        ):
            await sandbox.files.write("a", "x")
            return await anext(changes)

    assert asyncio.run(first()) == mitos.types.FileEvent("CREATE", "/workspace/a")
