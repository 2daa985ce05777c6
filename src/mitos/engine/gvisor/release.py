"""Releases of gVisor's `runsc`: which one a binary is, and how the known ones differ.

Three kinds of binary are told apart by what `--version` prints:

    mitos-20260701.0        our own build, from the distribution `mitos-engine`
    release-20260701.0      an official release
    0.0~20240729.0          Debian's package

The control socket is private to a release. For those in the table the engine contract has passed
over it. Another release is tried out before it is used (`node/trial.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

__all__ = ["MINIMUM", "OWN", "Release", "Traits", "parse", "traits_of"]

# This release keeps a snapshot's pages in a file of their own, and its systrap is complete.
MINIMUM = 20240729

OWN = "mitos"
"""What marks a build of ours."""

_FORMAT = "gvisor-"

_LINE = re.compile(r"^runsc version (?:(mitos|release)-|0\.0~)?(\d{8})(?:\.(\d+))?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Traits:
    """How a release differs from others in what the engine needs of it.

    Attributes:
        has_socket: orders go over the control socket; else over the command line.
        has_own_calls: it has those of our build (`engine/reclaim` and `engine/timewait` in the
            repository's root).
        loses: what a newer one would give, for people; empty when there is nothing.
    """

    has_socket: bool = False
    has_own_calls: bool = False
    loses: str = ""


_KNOWN = {
    "mitos-20260701.0": Traits(has_socket=True, has_own_calls=True),
    "20240729.0": Traits(
        has_socket=True,
        loses=(
            "commands start in half the time, forks take a third less, a fork of many small files"
            " a tenth, and an idle sandbox costs no CPU"
        ),
    ),
}
_UNKNOWN = Traits()


@dataclass(frozen=True, slots=True)
class Release:
    """A release of runsc.

    Attributes:
        date: the release's date as a number, such as 20240729.
        revision: the number after it.
        is_own: True for a build of ours.
    """

    date: int
    revision: int
    is_own: bool = False

    def __str__(self) -> str:
        return (
            f"{OWN}-{self.date}.{self.revision}" if self.is_own else f"{self.date}.{self.revision}"
        )

    @property
    def is_supported(self) -> bool:
        """True when the engine may be able to use this release."""
        return self.date >= MINIMUM

    @property
    def is_known(self) -> bool:
        """True when it is in the table; others have to pass the trial."""
        return str(self) in _KNOWN

    @property
    def traits(self) -> Traits:
        """How it differs; of one that is not known, the least that can be relied on."""
        return traits_of(self.snapshot_format)

    @property
    def snapshot_format(self) -> str:
        """Names what can read its snapshots."""
        return f"{_FORMAT}{self}"


def traits_of(snapshot_format: str) -> Traits:
    """How the release with those snapshots differs; of an unknown one, the least that is sure."""
    return _KNOWN.get(snapshot_format.removeprefix(_FORMAT), _UNKNOWN)


def parse(text: str) -> Release | None:
    """Reads what `runsc --version` prints; None when it is not a release."""
    found = _LINE.search(text)
    if found is None or not _is_date(found[2]):
        return None
    return Release(int(found[2]), int(found[3] or 0), is_own=found[1] == OWN)


def _is_date(digits: str) -> bool:
    try:
        date.fromisoformat(digits)
    except ValueError:
        return False
    return True
