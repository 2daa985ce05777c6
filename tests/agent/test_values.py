"""What an agent answers, as values that every message can carry: its bytes are a guest's."""

from __future__ import annotations

import pytest

from mitos.agent.command import command_info
from mitos.agent.file import FileEntry
from mitos.server.runtime import messages
from mitos.wire.link import Fields, Tag

LARGEST = (1 << 64) - 1


@pytest.mark.parametrize("tag", [Tag.MODE, Tag.SIZE, Tag.MTIME])
@pytest.mark.parametrize("number", [1 << 31, 1 << 32, 1 << 63, LARGEST])
def test_a_file_of_any_numbers_can_be_shown(tag: Tag, number: int) -> None:
    entry = FileEntry.of(Fields().text(Tag.NAME, "a").uint(tag, number))

    assert messages.file_info(entry).to_binary()
    assert entry.is_directory in (True, False)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(3, 3), (LARGEST, -1), (1 << 31, (1 << 31) - 1), (1 << 63, -(1 << 31) + 1)],
)
def test_any_exit_code_can_be_shown(number: int, shown: int) -> None:
    info = command_info(Fields().uint(Tag.ENDED, 1).uint(Tag.EXIT_CODE, number))

    assert info.exit is not None
    assert shown == messages.exec_exit(info.exit).exit_code


def test_why_a_command_was_not_started_can_be_shown_whatever_its_bytes() -> None:
    failed = Fields().uint(Tag.ENDED, 1).uint(Tag.ERRNO, 2).raw(Tag.MESSAGE, b"no caf\xc3")
    info = command_info(failed)

    assert info.exit is not None
    assert "no caf\N{REPLACEMENT CHARACTER}" == messages.exec_exit(info.exit).error
