"""Images of root filesystems: the same tree gives the same bytes, and the guest's files are in."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mitos.host import process
from mitos.host.rootfs import RootFilesystem, RootKind
from mitos.images import erofs
from mitos.images.store import BuiltImage, ImageBuildError, ImageStore

KEY = "0123456789abcdef" * 2


@pytest.fixture
def built(tmp_path: Path) -> BuiltImage:
    """A small root filesystem in a store."""
    if not erofs.is_available():
        pytest.skip("mkfs.erofs is not installed: run scripts/install")
    root = tmp_path / "rootfs" / KEY
    (root / "opt/mitos").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/link").symlink_to("passwd")
    os.link(root / "etc/passwd", root / "etc/same")
    return BuiltImage(RootFilesystem(RootKind.FOLDER, root), KEY)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The guest's files."""
    folder = tmp_path / "guest" / "v1"
    folder.mkdir(parents=True)
    (folder / "agent").write_bytes(b"agent")
    return folder


def content(image: Path, folder: Path) -> Path:
    """Unpacks an image."""
    subprocess.run(["fsck.erofs", f"--extract={folder}", image], check=True, capture_output=True)
    return folder


async def test_an_image_has_the_tree_and_the_guests_files(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    image = await ImageStore(tmp_path).seal(built, guest, lambda _: None)

    assert image == ImageStore(tmp_path).sealed(built, guest)
    assert image.kind is RootKind.EROFS_IMAGE
    assert image.path.stat().st_mode & 0o777 == 0o444
    tree = content(image.path, tmp_path / "tree")
    assert (tree / "etc/same").read_text() == "root:x:0:0::/root:/bin/sh\n"
    assert (tree / "etc/link").readlink() == Path("passwd")
    assert (tree / "opt/mitos/agent").read_bytes() == b"agent"
    assert not list((built.path / "opt/mitos").iterdir())


async def test_the_same_tree_gives_the_same_bytes(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path)
    first = (await store.seal(built, guest, lambda _: None)).path
    kept = first.read_bytes()
    first.unlink()
    await asyncio.sleep(1.1)  # the time of the build, in seconds, is not in it

    await store.seal(built, guest, lambda _: None)

    assert first.read_bytes() == kept


async def test_an_image_that_exists_is_not_written_again(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path)
    image = await store.seal(built, guest, lambda _: None)
    before = image.path.stat()

    steps: list[str] = []
    await store.seal(built, guest, steps.append)

    assert image.path.stat() == before
    assert steps == []


async def test_links_of_the_image_lead_nothing_of_the_guests_out(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    """The image may have anything in /opt/mitos: it is not written through, but replaced."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (built.path / "opt/mitos/agent").symlink_to(victim)
    (built.path / "opt/mitos/kernels").symlink_to(tmp_path)

    image = await ImageStore(tmp_path).seal(built, guest, lambda _: None)

    assert victim.read_text() == "mine"
    assert (content(image.path, tmp_path / "tree") / "opt/mitos/agent").read_bytes() == b"agent"


async def test_what_a_dead_build_left_is_removed(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path)
    dead = tmp_path / "rootfs" / f"sealing-{store.sealed(built, guest).path.stem}-x"
    dead.mkdir()

    await store.seal(built, guest, lambda _: None)

    assert not list((tmp_path / "rootfs").glob("sealing-*"))


async def test_a_failure_leaves_nothing(
    built: BuiltImage, guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise process.CommandError("no space left on device")

    monkeypatch.setattr(erofs, "write", fail)
    store = ImageStore(tmp_path)

    with pytest.raises(ImageBuildError, match="no space left"):
        await store.seal(built, guest, lambda _: None)

    assert not store.sealed(built, guest).exists()
    assert not list((tmp_path / "rootfs").glob("sealing-*"))


async def test_a_root_that_is_gone_fails_in_words(
    built: BuiltImage, guest: Path, tmp_path: Path
) -> None:
    shutil.rmtree(built.path)

    with pytest.raises(ImageBuildError, match="could not be written"):
        await ImageStore(tmp_path).seal(built, guest, lambda _: None)
