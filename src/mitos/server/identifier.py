"""Ids as requests bring them, checked where they enter. Pure."""

from __future__ import annotations

from mitos.wire.errors import ApiError
from mitos.wire.ids import ID_PATTERN, is_valid_id

__all__ = ["checked_id"]


def checked_id(value: object, kind: str) -> str:
    """The value, if it is an id.

    Args:
        value: from a body, a path or a header.
        kind: of what, for the refusal.

    Raises:
        ApiError: `invalid_input`.
    """
    if isinstance(value, str) and is_valid_id(value):
        return value
    raise ApiError(
        "invalid_input",
        f"the {kind} id is missing or not allowed",
        remediation=f"Use 1 to 64 characters that match {ID_PATTERN}.",
    )
