"""Pages and filters of `List`: which entries of a directory go into one answer. Pure.

A filter is `name=value` terms joined by ` AND `: `is_dir=true`, `is_dir=false`, `name=*.py` (a
shell pattern). A page token is the last name that was sent, so pages stay right while files come
and go.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Callable, Sequence

from mitos.agent.file import FileEntry
from mitos.wire.errors import ApiError

__all__ = ["page"]

FILTER_LIMIT = 1024
"""Characters; a pattern is matched against every name."""


def page(
    entries: Sequence[FileEntry], *, size: int, token: str, wanted: str
) -> tuple[list[FileEntry], str]:
    """The entries of one page, and the token of the next, empty after the last.

    Args:
        entries: sorted by name.
        size: most entries of the page; 0 or less means all.
        token: what the page before gave.
        wanted: the filter.

    Raises:
        ApiError: `invalid_input` for a token or filter that is none.
    """
    accepts = _filter(wanted)
    after = _name(token)
    found = [entry for entry in entries if accepts(entry)]
    if token:
        found = [entry for entry in found if _key(entry.name) > after]
    if size <= 0 or len(found) <= size:
        return found, ""
    return found[:size], base64.urlsafe_b64encode(_key(found[size - 1].name)).decode()


def _key(name: str) -> bytes:
    """Names are sorted bytewise."""
    return name.encode()


def _name(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            "invalid_input",
            "the page token is none of ours",
            remediation="Send the nextPageToken of the page before, or none.",
        ) from None


def _filter(text: str) -> Callable[[FileEntry], bool]:
    if not text.strip():
        return lambda _: True
    if len(text) > FILTER_LIMIT:
        raise ApiError("invalid_input", f"the filter is over {FILTER_LIMIT} characters")
    terms = [_term(term) for term in text.split(" AND ")]
    return lambda entry: all(term(entry) for term in terms)


def _term(text: str) -> Callable[[FileEntry], bool]:
    name, _, value = (part.strip() for part in text.partition("="))
    if name == "is_dir" and value in ("true", "false"):
        return lambda entry: entry.is_directory == (value == "true")
    if name == "name" and value:
        return lambda entry: fnmatch.fnmatchcase(entry.name, value)
    raise ApiError(
        "invalid_input",
        f"the filter {text!r} is not understood",
        remediation="Use is_dir=true, is_dir=false or name=PATTERN, joined by ' AND '.",
    )
