"""Preview tokens: the published vector, and everything that must not pass."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitos.wire.preview import Grant, GrantError, mint, open_session, start_session, verify

SECRET = b"0123456789abcdef0123456789abcdef"
GRANT = Grant("sb-1", 8080, 1_700_000_000)
TOKEN = (
    "eyJzIjoic2ItMSIsInAiOjgwODAsImUiOjE3MDAwMDAwMDB9.8smLW2WvljYjb5iC0OlNELPC1r13VBU9bU9rd548gcI"
)


def test_the_published_vector() -> None:
    assert mint(SECRET, GRANT) == TOKEN
    assert verify(SECRET, TOKEN, now_unix=0) == GRANT


def test_the_expiry_second_is_still_valid() -> None:
    assert verify(SECRET, TOKEN, now_unix=1_700_000_000.9) == GRANT
    with pytest.raises(GrantError):
        verify(SECRET, TOKEN, now_unix=1_700_000_001)


@pytest.mark.parametrize("place", range(len(TOKEN)))
def test_a_changed_character_is_refused(place: int) -> None:
    for other in "AB.":
        forged = TOKEN[:place] + other + TOKEN[place + 1 :]
        if forged != TOKEN:
            with pytest.raises(GrantError):
                verify(SECRET, forged, now_unix=0)


@pytest.mark.parametrize("token", ["", ".", "a.", ".a", "a.b.c", TOKEN + ".", "ä.ö", TOKEN + "="])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(GrantError):
        verify(SECRET, token, now_unix=0)


def test_another_secret_is_refused() -> None:
    with pytest.raises(GrantError):
        verify(b"x" * 16, TOKEN, now_unix=0)


def test_a_session_is_no_token_and_a_token_no_session() -> None:
    session = start_session(SECRET, GRANT)

    assert open_session(SECRET, session, now_unix=0) == GRANT
    with pytest.raises(GrantError):
        verify(SECRET, session, now_unix=0)
    with pytest.raises(GrantError):
        open_session(SECRET, TOKEN, now_unix=0)
    with pytest.raises(GrantError):
        open_session(SECRET, session, now_unix=1_700_000_001)


def test_a_session_has_the_published_form() -> None:
    payload = start_session(SECRET, GRANT).partition(".")[0]

    body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert set(body) == {"sub", "email", "email_verified", "org_ids", "exp"}


@pytest.mark.parametrize(
    "grant",
    [GRANT, replace(GRANT, uid="05887a3b"), replace(GRANT, uid="05887a3b", owner="somebody")],
)
def test_a_grant_survives_its_token_and_its_session(grant: Grant) -> None:
    assert verify(SECRET, mint(SECRET, grant), now_unix=0) == grant
    assert open_session(SECRET, start_session(SECRET, grant), now_unix=0) == grant


@given(st.text(max_size=200))
def test_any_text_is_refused_by_its_own_error(text: str) -> None:
    with pytest.raises(GrantError):
        verify(SECRET, text, now_unix=0)
