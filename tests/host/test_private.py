"""What only its owner may open."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitos.host import private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_file_that_is_there_keeps_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("held")
    file.chmod(0o4755)

    private.make_file(file)

    assert ("held", 0o4700) == (file.read_text(), mode(file))


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    private.make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b").chmod(0o755)
    private.make_folder(tmp_path / "a" / "b")

    assert 0o700 == mode(tmp_path / "a" / "b")


def test_what_is_no_folder_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        private.make_folder(tmp_path / "file")


@pytest.mark.parametrize(("given", "expected"), [(0o600, False), (0o700, False), (0o610, True)])
def test_only_rights_of_others_count(given: int, expected: bool) -> None:
    assert expected == private.others_may_open(given)
