from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from mitos.images import debian, skeleton
from mitos.images.image import ArchiveImage, DebianImage, DirectoryImage
from mitos.images.store import ImageBuildError, ImageStore
from mitos.node.template.catalog import BUILT_IN


def silent(_: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> ImageStore:
    return ImageStore(home)


@pytest.fixture
def folder(tmp_path: Path) -> DirectoryImage:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin/tool").write_text("#!/bin/sh\n")
    return DirectoryImage("mine", source)


def leftovers(home: Path) -> list[str]:
    """What a finished or failed build may not leave."""
    return [path.name for path in (home / "rootfs").glob("building-*")]


async def test_a_folder_is_copied_completed_and_kept(
    store: ImageStore, home: Path, folder: DirectoryImage
) -> None:
    told: list[str] = []

    made = await store.ensure(folder, told.append)

    assert made.path == home / "rootfs" / made.key
    assert (made.path / "bin/tool").read_text() == "#!/bin/sh\n"
    assert (made.path / "workspace").is_dir()
    assert any("copying" in line for line in told)
    assert leftovers(home) == []


async def test_a_change_of_the_source_never_reaches_what_was_built(
    store: ImageStore, folder: DirectoryImage
) -> None:
    before = await store.ensure(folder, silent)

    (folder.path / "bin/tool").write_text("changed")
    after = await store.ensure(folder, silent)

    assert (before.path / "bin/tool").read_text() == "#!/bin/sh\n"
    assert (after.path / "bin/tool").read_text() == "changed"
    assert before.key != after.key


async def test_a_second_call_builds_nothing(store: ImageStore, folder: DirectoryImage) -> None:
    first = await store.ensure(folder, silent)
    told: list[str] = []

    assert await store.ensure(folder, told.append) == first
    assert await store.find(folder) == first
    assert told == []


async def test_an_image_that_was_not_built_is_not_found(
    store: ImageStore, folder: DirectoryImage
) -> None:
    assert await store.find(folder) is None


async def test_an_archive_is_unpacked(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with tarfile.open(tmp_path / "image.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "file", "etc/file")

    made = await store.ensure(ArchiveImage("packed", tmp_path / "image.tar.gz"), silent)

    assert (made.path / "etc/file").read_text() == "content"


async def test_callers_at_the_same_time_share_one_build(
    store: ImageStore, home: Path, folder: DirectoryImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = 0
    complete = skeleton.complete

    def counting(root: Path) -> None:
        nonlocal builds
        builds += 1
        complete(root)

    monkeypatch.setattr(skeleton, "complete", counting)
    other = ImageStore(home)

    made = await asyncio.gather(
        *(asked.ensure(folder, silent) for asked in (store, other, store, other))
    )

    assert len(set(made)) == 1
    assert builds == 1


BUILD_ELSEWHERE = """
import asyncio, sys, time
from pathlib import Path
from mitos.images import skeleton
from mitos.images.image import DirectoryImage
from mitos.images.store import ImageStore

home, source = Path(sys.argv[1]), Path(sys.argv[2])
complete = skeleton.complete

def slow(root):
    print("building", flush=True)
    time.sleep(float(sys.argv[3]))
    complete(root)

skeleton.complete = slow
store = ImageStore(home)
print(asyncio.run(store.ensure(DirectoryImage("mine", source), lambda _: None)).key)
"""


def start_elsewhere(home: Path, folder: DirectoryImage, hold_s: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILD_ELSEWHERE, str(home), str(folder.path), str(hold_s)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    return process


async def test_a_build_in_another_process_is_waited_for(
    store: ImageStore, home: Path, folder: DirectoryImage
) -> None:
    other = start_elsewhere(home, folder, 0.5)
    told: list[str] = []

    made = await store.ensure(folder, told.append)

    key, _ = await asyncio.to_thread(other.communicate, timeout=10)
    assert key.strip() == made.key
    assert told == ["mine: waiting for the build that is under way"]


async def test_what_a_killed_builder_left_is_removed_by_the_next(
    store: ImageStore, home: Path, folder: DirectoryImage
) -> None:
    other = start_elsewhere(home, folder, 60)
    other.send_signal(signal.SIGKILL)
    other.communicate(timeout=10)
    assert len(leftovers(home)) == 1

    await store.ensure(folder, silent)

    assert leftovers(home) == []


async def test_a_full_disk_is_said_and_leaves_nothing(
    store: ImageStore, home: Path, folder: DirectoryImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(skeleton, "complete", full)

    with pytest.raises(ImageBuildError, match=r"'mine' could not be built: .*No space left"):
        await store.ensure(folder, silent)

    assert leftovers(home) == []
    monkeypatch.undo()
    assert (await store.ensure(folder, silent)).path.is_dir()


async def test_a_cancelled_build_leaves_nothing(
    store: ImageStore, home: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "image.tar", "w") as packed:
        for number in range(20_000):
            packed.addfile(tarfile.TarInfo(f"file{number}"))
    begun = asyncio.Event()
    image = ArchiveImage("packed", tmp_path / "image.tar")
    task = asyncio.ensure_future(store.ensure(image, lambda _: begun.set()))
    await begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert leftovers(home) == []
    assert await store.find(image) is None


@pytest.mark.parametrize("name", ["absent", "file.tar"])
async def test_a_source_that_cannot_be_used_is_named(
    store: ImageStore, home: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file.tar").write_text("not an archive")

    with pytest.raises(ImageBuildError, match=name):
        await store.ensure(ArchiveImage("packed", tmp_path / name), silent)

    assert leftovers(home) == []


async def test_an_archive_that_reaches_out_leaves_nothing(
    store: ImageStore, home: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "image.tar", "w") as packed:
        packed.addfile(tarfile.TarInfo("fine"))
        packed.addfile(tarfile.TarInfo("../evil"))

    with pytest.raises(ImageBuildError, match="reaches outside"):
        await store.ensure(ArchiveImage("packed", tmp_path / "image.tar"), silent)

    assert leftovers(home) == []
    assert not (home / "evil").exists()


async def test_a_rebuild_keeps_the_old_one_for_those_who_use_it(
    store: ImageStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = iter(["first", "second"])

    async def build(_: DebianImage, root: Path, __: object) -> None:
        (root / "etc").mkdir()
        (root / "etc/content").write_text(next(contents))

    monkeypatch.setattr(debian, "build", build)
    image = DebianImage("tiny", ("curl",))

    old = await store.ensure(image, silent)
    new = await store.rebuild(image, silent)

    assert (old.path / "etc/content").read_text() == "first"
    assert (new.path / "etc/content").read_text() == "second"
    assert await store.ensure(image, silent) == new


async def test_a_root_filesystem_that_was_deleted_is_built_again(
    store: ImageStore, folder: DirectoryImage
) -> None:
    made = await store.ensure(folder, silent)
    made.path.rename(made.path.with_name("gone"))

    assert (await store.ensure(folder, silent)).path.is_dir()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": 3}'])
async def test_a_damaged_record_is_repaired_by_building_again(
    store: ImageStore, home: Path, folder: DirectoryImage, content: str
) -> None:
    await store.ensure(folder, silent)
    [record] = (home / "rootfs").glob("*.json")
    record.write_text(content)
    assert await store.find(folder) is None

    made = await store.ensure(folder, silent)

    assert (made.path / "bin/tool").exists()
    assert await store.find(folder) == made


async def test_a_source_that_changes_while_it_is_read_is_refused(
    store: ImageStore, home: Path, folder: DirectoryImage
) -> None:
    def meddle(_: str) -> None:
        (folder.path / "bin/tool").write_text("changed")

    with pytest.raises(ImageBuildError, match="'mine' changed while it was read"):
        await store.ensure(folder, meddle)

    assert leftovers(home) == []


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_a_package_that_does_not_exist_fails_with_what_the_tool_said(
    store: ImageStore, home: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("Debian images are built as root")

    with pytest.raises(ImageBuildError, match="Unable to locate package no-such-package"):
        await store.ensure(DebianImage("broken", ("no-such-package",)), silent)

    assert leftovers(home) == []
    assert str(home) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_a_build_that_is_cancelled_ends_its_tool(store: ImageStore, home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("Debian images are built as root")
    begun = asyncio.Event()
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line)
        if "extracting" in line:
            begun.set()

    task = asyncio.ensure_future(store.ensure(DebianImage("short", ("less",)), progress))
    async with asyncio.timeout(120):
        await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    deadline = time.monotonic() + 10
    while running := processes_naming(home):
        assert time.monotonic() < deadline, running
        await asyncio.sleep(0.1)
    assert leftovers(home) == []
    assert str(home) not in Path("/proc/self/mountinfo").read_text()


def processes_naming(home: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in words:
            found.append(f"{entry}: {words!r}")
    return found


@pytest.mark.real
@pytest.mark.timeout(900)
async def test_the_python_image_has_what_it_promises() -> None:
    """Built from Debian packages, or found in the machine's home where it has been built before."""
    if os.geteuid() != 0:
        pytest.skip("Debian images are built as root")
    home = Path(os.environ.get("MITOS_HOME") or "/var/lib/mitos")
    store = ImageStore(home)

    root = (await store.ensure(BUILT_IN["python"].base, silent)).path

    for program in ("python", "python3", "pip", "git", "curl", "ps"):
        assert (root / "usr/bin" / program).exists(), program
    assert list((root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED")) == []
    assert list((root / "usr/lib/python3.11").glob("__pycache__/*.pyc")) != []
    assert list((root / "var/lib/apt/lists").iterdir()) == []
    assert list((root / "dev").iterdir()) == []
    assert "deb.debian.org" in (root / "etc/apt/sources.list").read_text()
    assert list((root / "etc/apt/apt.conf.d").glob("*mmdebstrap*")) == []
    assert (root / "etc/machine-id").read_text() == ""
