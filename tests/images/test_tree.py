from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from mitos.images import skeleton, tree
from mitos.images.image import ImageBuildError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (made / "link").symlink_to("/etc")
    return made


def test_the_digest_is_the_same_for_a_copy(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    os.utime(copy / "link", (1, 1), follow_symlinks=False)
    os.utime(root / "link", (1, 1), follow_symlinks=False)

    assert tree.digest(root) == tree.digest(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "etc/passwd").write_text("root:x:0:0::/:/bin/no\n"),
        lambda root: (root / "etc/passwd").chmod(0o600),
        lambda root: (root / "etc/passwd").rename(root / "etc/passwd-"),
        lambda root: (root / "etc/empty").mkdir(),
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("/usr")),
    ],
)
def test_the_digest_and_the_fingerprint_notice_every_change(root: Path, change: object) -> None:
    os.utime(root / "etc", (1, 1))
    before = tree.digest(root), tree.fingerprint(root)

    change(root)  # type: ignore[operator]
    os.utime(root / "etc", (1, 1))

    assert tree.digest(root) != before[0]
    assert tree.fingerprint(root) != before[1]


def test_names_that_are_not_utf8_are_hashed(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_text("x")

    assert len(tree.digest(root)) == 64


def test_writing_replaces_a_link_and_leaves_its_target_alone(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    (root / "etc/hosts").symlink_to(precious)

    tree.write(root, "etc/hosts", "new")

    assert precious.read_text() == "untouched"
    assert (root / "etc/hosts").read_text() == "new"


def test_no_step_goes_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "opt").symlink_to(tmp_path / "outside")

    with pytest.raises(OSError, match="opt"):
        tree.write(root, "opt/file", "evil")
    with pytest.raises(OSError, match="opt"):
        tree.remove(root, "opt/file")

    assert list((tmp_path / "outside").iterdir()) == []


def test_removing_a_folder_leaves_what_its_links_point_to(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("untouched")
    (root / "var/cache/deep").mkdir(parents=True)
    (root / "var/cache/folder").symlink_to(outside)
    (root / "var/cache/file").symlink_to(outside / "precious")

    tree.remove(root, "var/cache", content_only=True)
    assert list((root / "var/cache").iterdir()) == []
    tree.remove(root, "var")

    assert not (root / "var").exists()
    assert (outside / "precious").read_text() == "untouched"


def test_removing_what_is_not_there_is_fine(root: Path) -> None:
    tree.remove(root, "no/such/thing")

    assert (root / "etc/passwd").exists()


def test_pipes_and_sockets_are_stripped_and_files_stay(root: Path) -> None:
    os.mkfifo(root / "etc/pipe")

    assert tree.strip(root) == 1
    assert not (root / "etc/pipe").exists()
    assert (root / "etc/passwd").exists()
    assert (root / "link").is_symlink()


def test_completing_adds_mount_points_and_basic_files(root: Path) -> None:
    skeleton.complete(root)

    assert (root / "workspace").is_dir()
    assert (root / "opt/mitos").is_dir()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert "localhost" in (root / "etc/hosts").read_text()
    assert (root / "etc/resolv.conf").exists()


def test_completing_keeps_what_the_image_brings(root: Path) -> None:
    (root / "workspace").mkdir(mode=0o700)

    skeleton.complete(root)

    assert stat.S_IMODE((root / "workspace").stat().st_mode) == 0o700
    assert (root / "etc/passwd").read_text() == "root:x:0:0::/:/bin/sh\n"


@pytest.mark.parametrize("name", ["workspace", "opt", "proc"])
def test_a_link_where_a_mount_point_must_be_is_refused(
    root: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / name).symlink_to(outside)

    with pytest.raises(ImageBuildError, match="must be a folder"):
        skeleton.complete(root)

    assert list(outside.iterdir()) == []


def test_an_empty_root_filesystem_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError, match="empty"):
        skeleton.complete(tmp_path)
