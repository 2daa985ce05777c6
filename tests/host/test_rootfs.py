from __future__ import annotations

from pathlib import Path

import pytest

from mitos.host.rootfs import RootFilesystem, RootKind


def test_equal_ones_are_one_key() -> None:
    path = Path("/images/python")

    assert {RootFilesystem(RootKind.FOLDER, path): 1} == {
        RootFilesystem(RootKind.FOLDER, Path("/images/python")): 1
    }
    assert RootFilesystem(RootKind.FOLDER, path) != RootFilesystem(RootKind.EROFS_IMAGE, path)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (RootKind.FOLDER, "folder", True),
        (RootKind.FOLDER, "file", False),
        (RootKind.FOLDER, "nothing", False),
        (RootKind.EROFS_IMAGE, "folder", False),
        (RootKind.EROFS_IMAGE, "file", True),
        (RootKind.EROFS_IMAGE, "nothing", False),
    ],
)
def test_it_exists_only_as_what_its_kind_says(
    tmp_path: Path, kind: RootKind, name: str, expected: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    assert RootFilesystem(kind, tmp_path / name).exists() is expected
