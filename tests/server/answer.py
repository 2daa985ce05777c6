"""Answers of the `/v1` routes, as tests read them."""

from __future__ import annotations

import httpx


def error_of(answer: httpx.Response) -> dict[str, object]:
    """The envelope, which has no other members."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert set(error) <= {"code", "message", "cause", "remediation", "context"}
    assert error["code"]
    assert error["message"]
    assert error["remediation"]
    return dict(error)


def outcome(answer: httpx.Response) -> tuple[int, object]:
    return answer.status_code, error_of(answer)["code"]


BAD_IDS = ["", "a/b", "..", "python:3.12", "a" * 65, "-a", "a\n", "ä", "a b", 7, None]
