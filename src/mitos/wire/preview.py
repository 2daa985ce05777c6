"""Preview tokens: who may reach one port of one sandbox, and until when.

    payload = b64url({"s": sandbox id, "p": port, "e": expiry, "u"?: uid, "o"?: owner})
    token   = payload "." b64url(HMAC-SHA256(secret, "mitos-preview-v1" NUL payload))

The expiry is in unix seconds. The uid is our addition: an id can be used again, and a token must
not outlive its sandbox. A browser that showed a token gets a session cookie of the same form under
another tag, so that what a page loads needs no token of its own. b64url is base64 for URLs without
padding. Format: the wire contract, section 4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

__all__ = [
    "MIN_SECRET_BYTES",
    "Grant",
    "GrantError",
    "mint",
    "open_session",
    "start_session",
    "verify",
]

MIN_SECRET_BYTES = 16

_TOKEN_TAG = b"mitos-preview-v1\0"
_SESSION_TAG = b"mitos-expose-session-v1\0"


class GrantError(ValueError):
    """A token or session is not valid, or no longer. The text does not hold it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to reach one port.

    Attributes:
        sandbox_id: the sandbox.
        port: TCP port on its loopback.
        expires_unix: the last second in which it holds.
        uid: which sandbox of that id; a grant without one has the published form, and opens none.
        owner: whose sandbox it is; empty for the owner of a server that knows only one.
    """

    sandbox_id: str
    port: int
    expires_unix: int
    uid: str = ""
    owner: str = ""


def mint(secret: bytes, grant: Grant) -> str:
    """The token of a grant.

    Example:
        >>> mint(b"0123456789abcdef" * 2, Grant("sb-1", 8080, 1700000000))[:20]
        'eyJzIjoic2ItMSIsInAi'
    """
    body: dict[str, object] = {"s": grant.sandbox_id, "p": grant.port, "e": grant.expires_unix}
    return _seal(secret, _TOKEN_TAG, body | _additions(grant))


def verify(secret: bytes, token: str, *, now_unix: float) -> Grant:
    """Reads a token.

    Raises:
        GrantError: forged, malformed or expired.
    """
    match _open(secret, _TOKEN_TAG, token):
        case {"s": str(sandbox_id), "p": int(port), "e": int(expires_unix), **rest}:
            grant = Grant(sandbox_id, port, expires_unix, **_added(rest))
            return _still_valid(grant, now_unix)
    raise GrantError("the token has another form")


def start_session(secret: bytes, grant: Grant) -> str:
    """The value of the cookie for a browser that showed a token of this grant."""
    body: dict[str, object] = {
        "sub": f"{grant.sandbox_id}:{grant.port}",
        "email": "",
        "email_verified": False,
        "org_ids": [],
        "exp": grant.expires_unix,
    }
    return _seal(secret, _SESSION_TAG, body | _additions(grant))


def open_session(secret: bytes, cookie: str, *, now_unix: float) -> Grant:
    """Reads a session cookie.

    Raises:
        GrantError: forged, malformed or expired.
    """
    match _open(secret, _SESSION_TAG, cookie):
        case {"sub": str(subject), "exp": int(expires_unix), **rest}:
            sandbox_id, _, port = subject.rpartition(":")
            if port.isdecimal():
                grant = Grant(sandbox_id, int(port), expires_unix, **_added(rest))
                return _still_valid(grant, now_unix)
    raise GrantError("the session has another form")


def _additions(grant: Grant) -> dict[str, object]:
    return {name: value for name, value in (("u", grant.uid), ("o", grant.owner)) if value}


def _added(body: dict[object, object]) -> dict[str, str]:
    return {"uid": str(body.get("u", "")), "owner": str(body.get("o", ""))}


def _still_valid(grant: Grant, now_unix: float) -> Grant:
    if int(now_unix) > grant.expires_unix:
        raise GrantError("it has expired")
    return grant


def _seal(secret: bytes, tag: bytes, body: dict[str, object]) -> str:
    payload = _encode(json.dumps(body, separators=(",", ":")).encode())
    return f"{payload}.{_encode(_mac(secret, tag, payload))}"


def _open(secret: bytes, tag: bytes, text: str) -> object:
    """What was sealed. The seal is checked before anything of the payload is read."""
    payload, dot, given = text.partition(".")
    if not (payload and dot and given) or "." in given or not text.isascii():
        raise GrantError("it is not two parts with a dot between them")
    if not hmac.compare_digest(_encode(_mac(secret, tag, payload)), given):
        raise GrantError("its signature is wrong")
    try:
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise GrantError("its payload cannot be read") from None


def _mac(secret: bytes, tag: bytes, payload: str) -> bytes:
    return hmac.new(secret, tag + payload.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
