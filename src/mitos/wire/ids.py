"""Names: ids of sandboxes and templates, and texts that are kept for a user, such as a label.

Both are checked wherever they enter. Also how many sandboxes one fork may make.
"""

from __future__ import annotations

import re
import secrets

__all__ = [
    "ID_PATTERN",
    "MAX_CHILDREN",
    "MAX_LABEL",
    "is_text",
    "is_valid_id",
    "new_ids",
]

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


def is_text(value: object, max_length: int) -> bool:
    r"""True for Unicode text without NUL: every system can keep it and give it back.

    A JSON escape can write half of a surrogate pair, which no encoding has.

    Args:
        value: from a request.
        max_length: in characters.

    Example:
        >>> is_text("späť", 256), is_text("a\0", 256), is_text("\ud800", 256)
        (True, False, False)
    """
    if not isinstance(value, str) or len(value) > max_length or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def new_ids(count: int, label: str = "sandbox") -> list[str]:
    """Fresh ids for sandboxes: the label, a hyphen and 8 digits.

    Preconditions: the label is an id of at most `MAX_LABEL` characters.
    """
    return [f"{label}-{secrets.token_hex(4)}" for _ in range(count)]
