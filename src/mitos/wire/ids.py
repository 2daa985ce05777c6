"""Names of sandboxes and templates: the one pattern, checked wherever such a name enters.

Also how many of them one fork may make.
"""

from __future__ import annotations

import re
import secrets

__all__ = ["ID_PATTERN", "MAX_CHILDREN", "MAX_LABEL", "is_valid_id", "new_ids"]

ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""As the published contract writes it; matched against the whole text."""

MAX_CHILDREN = 64
"""Of one fork, from whichever side it is asked for."""

MAX_LABEL = 55
"""Characters; a hyphen and 8 digits follow it in an id."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_valid_id(text: str) -> bool:
    r"""True when the whole text is an id; a trailing newline is not.

    Example:
        >>> is_valid_id("sandbox-0a1b2c3d"), is_valid_id("a/b"), is_valid_id("a\n")
        (True, False, False)
    """
    return _ID.fullmatch(text) is not None


def new_ids(count: int, label: str = "sandbox") -> list[str]:
    """Fresh ids for sandboxes: the label, a hyphen and 8 digits.

    Preconditions: the label is an id of at most `MAX_LABEL` characters.
    """
    return [f"{label}-{secrets.token_hex(4)}" for _ in range(count)]
