from __future__ import annotations

import json
from pathlib import Path

import pytest

from mitos.engine.gvisor import image
from mitos.engine.gvisor.image import ImageError, Size


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    with image.create_files(tmp_path):
        for name in image.FILES:
            (tmp_path / name).write_bytes(b"x" * len(name))
    image.seal(tmp_path, snapshot_format="gvisor-1.0")
    return tmp_path


def test_a_sealed_image_has_a_size(sealed: Path) -> None:
    assert image.read_size(sealed, snapshot_format="gvisor-1.0") == Size(
        objects_bytes=len("checkpoint.img"), pages_bytes=len("pages.img")
    )


def test_an_image_without_manifest_is_refused(sealed: Path) -> None:
    (sealed / "manifest.json").unlink()

    with pytest.raises(ImageError, match="not a finished snapshot"):
        image.read_size(sealed, snapshot_format="gvisor-1.0")


def test_an_image_of_another_release_is_refused(sealed: Path) -> None:
    with pytest.raises(ImageError, match=r"written by gvisor-1\.0, this engine is gvisor-2\.0"):
        image.read_size(sealed, snapshot_format="gvisor-2.0")


@pytest.mark.parametrize("name", image.FILES)
def test_a_truncated_file_is_noticed(sealed: Path, name: str) -> None:
    (sealed / name).write_bytes(b"x" * 8)

    with pytest.raises(ImageError, match="damaged"):
        image.read_size(sealed, snapshot_format="gvisor-1.0")


@pytest.mark.parametrize("name", image.FILES)
def test_a_missing_file_is_noticed(sealed: Path, name: str) -> None:
    (sealed / name).unlink()

    with pytest.raises(ImageError, match="not a finished snapshot"):
        image.read_size(sealed, snapshot_format="gvisor-1.0")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', json.dumps("x" * 9000)])
def test_a_manifest_that_is_not_one_is_refused(sealed: Path, text: str) -> None:
    (sealed / "manifest.json").write_text(text)

    with pytest.raises(ImageError, match="not a finished snapshot"):
        image.read_size(sealed, snapshot_format="gvisor-1.0")


def test_files_are_never_written_over(sealed: Path) -> None:
    with pytest.raises(FileExistsError), image.create_files(sealed):
        pass


def test_links_are_not_followed(sealed: Path, tmp_path: Path) -> None:
    (sealed / "pages.img").unlink()
    (sealed / "pages.img").symlink_to(sealed / "checkpoint.img")

    with pytest.raises(OSError, match="symbolic links"), image.open_files(sealed):
        pass
