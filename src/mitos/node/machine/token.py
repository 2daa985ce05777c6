"""What a later server of this home shows a machine's agent, so that it goes on with it.

    <home>/link-secret      32 random bytes, in hex, made once

Each machine has a token of its own, which can be computed from its id again: nothing of it is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from mitos.host import private

__all__ = ["LinkTokens"]


class LinkTokens:
    """The tokens of a home's machines.

    Args:
        secret: of the home.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_home(cls, home: Path) -> LinkTokens:
        """Those of the machines of a home.

        Raises:
            OSError: its secret can be neither read nor made.
        """
        return cls(private.secret(home / "link-secret"))

    def of(self, machine_id: str) -> str:
        """The token of one machine: HMAC-SHA256 (RFC 2104) of its id, in hex."""
        return hmac.new(self._secret, machine_id.encode(), hashlib.sha256).hexdigest()
