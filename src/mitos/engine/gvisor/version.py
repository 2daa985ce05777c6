"""Versions of `runsc`: the oldest we accept, and those whose control socket we have tested."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MINIMUM", "Version", "parse"]

# This release keeps a snapshot's pages in a file of their own, and its systrap is complete.
MINIMUM = 20240729
# The socket is private to a release: each of these has passed the engine contract over it.
_TESTED = frozenset({"20240729.0"})

_LINE = re.compile(r"^runsc version (?:release-|0\.0~)?(\d{8})(?:\.(\d+))?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Version:
    """A release of runsc.

    Attributes:
        date: the release's date as a number, such as 20240729.
        revision: the number after it.
    """

    date: int
    revision: int

    def __str__(self) -> str:
        return f"{self.date}.{self.revision}"

    @property
    def is_supported(self) -> bool:
        """True when the engine can use this release."""
        return self.date >= MINIMUM

    @property
    def has_tested_socket(self) -> bool:
        """True when orders may go over the control socket."""
        return str(self) in _TESTED


def parse(text: str) -> Version | None:
    """Reads what `runsc --version` prints; None when it is not a release."""
    found = _LINE.search(text)
    if found is None:
        return None
    return Version(int(found[1]), int(found[2] or 0))
