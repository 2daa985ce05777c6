"""The error table against the published catalogue."""

from __future__ import annotations

import pytest

from mitos.wire.errors import CONNECT_STATUS, TABLE, ApiError, ConnectCode

PUBLISHED = {
    "body_too_large": (413, "resource_exhausted"),
    "budget_exhausted": (403, "permission_denied"),
    "build_failed": (422, "failed_precondition"),
    "canceled": (499, "canceled"),
    "exec_failed": (500, "internal"),
    "exec_timeout": (504, "deadline_exceeded"),
    "file_failed": (500, "internal"),
    "forbidden": (403, "permission_denied"),
    "idle_timeout": (410, "failed_precondition"),
    "internal": (500, "internal"),
    "invalid_input": (400, "invalid_argument"),
    "invalid_json": (400, "invalid_argument"),
    "not_found": (404, "not_found"),
    "quota_exceeded": (429, "resource_exhausted"),
    "rate_limited": (429, "resource_exhausted"),
    "timeout_too_large": (400, "invalid_argument"),
    "too_many_streams": (429, "resource_exhausted"),
    "unauthorized": (401, "unauthenticated"),
}


def test_the_catalogue_is_the_published_one() -> None:
    assert {code: (row.status, row.connect.value) for code, row in TABLE.items()} == PUBLISHED


@pytest.mark.parametrize("code", TABLE)
def test_an_envelope_has_what_a_reader_needs(code: str) -> None:
    envelope = ApiError(code, "it failed").envelope()["error"]

    assert isinstance(envelope, dict)
    assert {"code": code, "message": "it failed"}.items() <= envelope.items()
    assert envelope["remediation"].endswith(".") or "`" in envelope["remediation"]
    assert set(envelope) == {"code", "message", "remediation"}


def test_an_error_may_say_more_than_its_row() -> None:
    error = ApiError(
        "invalid_input",
        "it is paused",
        cause="somebody paused it",
        remediation="Resume it.",
        context={"sandbox": "a"},
        status=409,
        connect=ConnectCode.FAILED_PRECONDITION,
    )

    assert (409, ConnectCode.FAILED_PRECONDITION) == (error.status, error.connect)
    assert error.envelope() == {
        "error": {
            "code": "invalid_input",
            "message": "it is paused",
            "cause": "somebody paused it",
            "remediation": "Resume it.",
            "context": {"sandbox": "a"},
        }
    }


def test_an_error_can_be_written_down_whatever_a_guest_said() -> None:
    """Names in a sandbox are bytes; the agent cuts long ones, perhaps inside of a character."""
    said = b"caf\xc3".decode("utf-8", "surrogateescape")
    error = ApiError("file_failed", said, cause=said, remediation=said, context={"path": said})

    shown = "caf\N{REPLACEMENT CHARACTER}"
    assert (shown, shown, shown, {"path": shown}) == (
        error.message,
        error.cause,
        error.remediation,
        error.context,
    )


def test_every_connect_code_has_a_status() -> None:
    assert set(CONNECT_STATUS) == set(ConnectCode)
