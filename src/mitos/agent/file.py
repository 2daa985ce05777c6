"""Files of a sandbox as its kernel describes them, and what happens to them."""

from __future__ import annotations

import enum
import stat
from dataclasses import dataclass

from mitos.agent.answer import shown
from mitos.agent.process import MAX_INT64, MAX_UINT32
from mitos.wire.link import Fields, LinkError, Tag

__all__ = ["Change", "ChangeKind", "FileEntry"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the sandbox's kernel says about a path, links not followed."""

    name: str
    path: str
    mode: int
    size: int
    modified_at_unix: int
    link_target: str = ""

    @classmethod
    def of(cls, fields: Fields, *, exact: bool = False) -> FileEntry:
        """From an entry of `LIST` or the answer of `STAT`; numbers no message can carry are cut.

        With `exact`, bytes of names that are not UTF-8 come as lone surrogates, which name the file
        in later calls; without, as U+FFFD.
        """
        text = str if exact else shown
        return cls(
            name=text(fields.get_text(Tag.NAME)),
            path=text(fields.get_text(Tag.PATH)),
            mode=min(fields.get_uint(Tag.MODE), MAX_UINT32),
            size=min(fields.get_uint(Tag.SIZE), MAX_INT64),
            modified_at_unix=fields.get_int(Tag.MTIME),
            link_target=text(fields.get_text(Tag.LINK_TARGET)),
        )

    @property
    def is_directory(self) -> bool:
        """True for a directory; False for a link to one."""
        return stat.S_ISDIR(self.mode)


class ChangeKind(enum.IntEnum):
    """What happened to a path."""

    READY = 0
    CREATE = 1
    MODIFY = 2
    DELETE = 3
    RENAME = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened in a watched directory; `new_path` is for `RENAME` only."""

    kind: ChangeKind
    path: str
    new_path: str = ""

    @classmethod
    def of(cls, fields: Fields) -> Change:
        """From an entry of `WATCH`.

        Raises:
            LinkError: a kind that the document does not name.
        """
        try:
            kind = ChangeKind(fields.get_uint(Tag.CHANGE))
        except ValueError as exc:
            raise LinkError(str(exc)) from None
        new_path = shown(fields.get_text(Tag.NEW_PATH))
        return cls(kind, shown(fields.get_text(Tag.PATH)), new_path)
