"""Names of sandboxes and templates: the one pattern, checked wherever such a name enters."""

from __future__ import annotations

import re

__all__ = ["ID_PATTERN", "is_valid_id"]

ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""As the published contract writes it; matched against the whole text."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_valid_id(text: str) -> bool:
    r"""True when the whole text is an id; a trailing newline is not.

    Example:
        >>> is_valid_id("sandbox-0a1b2c3d"), is_valid_id("a/b"), is_valid_id("a\n")
        (True, False, False)
    """
    return _ID.fullmatch(text) is not None
