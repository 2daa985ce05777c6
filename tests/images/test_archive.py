from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mitos.images import archive
from mitos.images.archive import Limits
from mitos.images.image import ImageBuildError

SMALL = Limits(size_bytes=1 << 20, entries=100, spare_bytes=0)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.uid, made.gid = os.geteuid(), os.getegid()
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def pack(
    path: Path, *members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, mode: str = "w"
) -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., Path]:
    """Packs members into an archive and extracts it; the folder beside it must stay untouched."""

    def run(*members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        file = pack(tmp_path / "image.tar", *members)
        archive.extract(file, root, limits=SMALL, cancelled=threading.Event())
        return root

    return run


def test_files_folders_and_links_arrive_with_mode_time_and_content(
    unpack: Callable[..., Path],
) -> None:
    root = unpack(
        entry("./usr/bin", tarfile.DIRTYPE, mode=0o755),
        (entry("./usr/bin/tool", mode=0o4755, mtime=1_600_000_000), b"#!/bin/sh\n"),
        entry("usr/bin/again", tarfile.LNKTYPE, linkname="usr/bin/tool"),
        entry("bin", tarfile.SYMTYPE, linkname="usr/bin"),
    )

    tool = root / "usr/bin/tool"
    assert tool.read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o4755
    assert int(tool.stat().st_mtime) == 1_600_000_000
    assert tool.stat().st_ino == (root / "usr/bin/again").stat().st_ino
    assert str((root / "bin").readlink()) == "usr/bin"


def test_absolute_link_targets_are_kept_for_the_sandbox(unpack: Callable[..., Path]) -> None:
    root = unpack(entry("etc-link", tarfile.SYMTYPE, linkname="/etc/alternatives/awk"))

    assert str((root / "etc-link").readlink()) == "/etc/alternatives/awk"


def test_a_read_only_folder_is_filled_before_it_becomes_read_only(
    unpack: Callable[..., Path],
) -> None:
    root = unpack(entry("locked", tarfile.DIRTYPE, mode=0o555), (entry("locked/file"), b"content"))

    assert (root / "locked/file").read_bytes() == b"content"
    assert stat.S_IMODE((root / "locked").stat().st_mode) == 0o555


def test_a_later_entry_replaces_an_earlier_one(unpack: Callable[..., Path]) -> None:
    root = unpack((entry("file"), b"old"), (entry("file"), b"new"))

    assert (root / "file").read_bytes() == b"new"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_nodes_and_pipes_are_left_out(unpack: Callable[..., Path], kind: bytes) -> None:
    root = unpack(entry("dev/node", kind, devmajor=1, devminor=3), (entry("file"), b"x"))

    assert not os.path.lexists(root / "dev/node")
    assert (root / "file").exists()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside", "a/../../outside", "a/b/../c", "/", ""]
)
def test_names_that_leave_the_root_are_refused(
    unpack: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ImageBuildError):
        unpack((entry(name), b"evil"))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar", "root"]


@pytest.mark.parametrize("target", ["..", "/", "../..", "{outside}"])
def test_nothing_is_written_through_a_link_that_the_archive_placed(
    unpack: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    with pytest.raises(ImageBuildError):
        unpack(
            entry("way", tarfile.SYMTYPE, linkname=target.format(outside=outside)),
            (entry("way/evil"), b"evil"),
        )

    assert list(outside.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_file_replaces_a_link_instead_of_writing_to_its_target(
    unpack: Callable[..., Path], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")

    root = unpack(entry("file", tarfile.SYMTYPE, linkname=str(precious)), (entry("file"), b"evil"))

    assert precious.read_text() == "untouched"
    assert (root / "file").read_bytes() == b"evil"
    assert not (root / "file").is_symlink()


@pytest.mark.parametrize("target", ["../precious", "{absolute}", "way/precious"])
def test_hard_links_out_of_the_root_are_refused(
    unpack: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")

    with pytest.raises(ImageBuildError):
        unpack(
            entry("way", tarfile.SYMTYPE, linkname=str(tmp_path)),
            entry("stolen", tarfile.LNKTYPE, linkname=target.format(absolute=precious)),
        )

    assert precious.stat().st_nlink == 1


def test_more_bytes_than_the_limit_are_refused(unpack: Callable[..., Path]) -> None:
    half = b"x" * (SMALL.size_bytes // 2 + 1)

    with pytest.raises(ImageBuildError, match="more than"):
        unpack((entry("one"), half), (entry("two"), half))


def test_a_size_that_only_the_header_claims_is_refused_before_it_is_written(
    tmp_path: Path,
) -> None:
    claim = entry("huge")
    claim.size = 1 << 40
    file = tmp_path / "image.tar"
    file.write_bytes(claim.tobuf(tarfile.PAX_FORMAT) + b"\0" * 1024)
    (tmp_path / "root").mkdir()

    with pytest.raises(ImageBuildError, match="more than"):
        archive.extract(file, tmp_path / "root", limits=SMALL, cancelled=threading.Event())


def test_more_entries_than_the_limit_are_refused(unpack: Callable[..., Path]) -> None:
    members = [entry(f"d{number}", tarfile.DIRTYPE) for number in range(SMALL.entries + 1)]

    with pytest.raises(ImageBuildError, match="entries"):
        unpack(*members)


def test_a_disk_that_is_nearly_full_is_refused(tmp_path: Path) -> None:
    file = pack(tmp_path / "image.tar", (entry("file"), b"x"))
    (tmp_path / "root").mkdir()
    limits = Limits(spare_bytes=1 << 62)

    with pytest.raises(ImageBuildError, match="free space"):
        archive.extract(file, tmp_path / "root", limits=limits, cancelled=threading.Event())


@pytest.mark.parametrize("uid", [-1, 1 << 31])
def test_owners_out_of_range_are_refused(
    unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with pytest.raises(ImageBuildError, match="owner"):
        unpack((entry("file", uid=uid), b"x"))


def test_a_cancelled_extraction_ends(tmp_path: Path) -> None:
    file = pack(tmp_path / "image.tar", (entry("file"), b"x"))
    (tmp_path / "root").mkdir()
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(ImageBuildError, match="cancelled"):
        archive.extract(file, tmp_path / "root", limits=SMALL, cancelled=cancelled)

    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_archives_are_read_and_damage_is_noticed(
    tmp_path: Path, compression: str
) -> None:
    content = os.urandom(50_000)
    file = pack(tmp_path / "image", (entry("file"), content), mode=f"w:{compression}")
    for name in ("whole", "cut", "bent"):
        (tmp_path / name).mkdir()
    whole = file.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    bent = whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 64])
    (tmp_path / "bent.tar").write_bytes(bent + whole[middle + 64 :])

    archive.extract(file, tmp_path / "whole", limits=SMALL, cancelled=threading.Event())

    assert (tmp_path / "whole/file").read_bytes() == content
    for name in ("cut", "bent"):
        with pytest.raises(ImageBuildError):
            archive.extract(
                tmp_path / f"{name}.tar",
                tmp_path / name,
                limits=SMALL,
                cancelled=threading.Event(),
            )


@pytest.mark.parametrize("junk", [b"", b"not an archive", b"\x1f\x8b" + b"\0" * 64])
def test_what_is_no_archive_is_refused(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(junk)
    (tmp_path / "root").mkdir()

    with pytest.raises(ImageBuildError):
        archive.extract(
            tmp_path / "image.tar",
            tmp_path / "root",
            limits=SMALL,
            cancelled=threading.Event(),
        )


def compress(file: Path) -> None:
    subprocess.run(["zstd", "-q", str(file)], check=True, timeout=10)


async def test_zstandard_is_decompressed_by_its_program(tmp_path: Path) -> None:
    plain = pack(tmp_path / "image.tar", (entry("file"), b"content"))
    compress(plain)
    (tmp_path / "work").mkdir()

    readable = await archive.decompress(tmp_path / "image.tar.zst", tmp_path / "work", SMALL)

    assert readable.read_bytes() == plain.read_bytes()
    assert readable.parent == tmp_path / "work"


async def test_a_zstandard_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "big.tar").write_bytes(b"\0" * (4 << 20))
    compress(tmp_path / "big.tar")

    with pytest.raises(ImageBuildError, match="decompressed"):
        await archive.decompress(tmp_path / "big.tar.zst", tmp_path / "out", SMALL)
