"""Going on with the link of an earlier server, whose bytes begin and end anywhere.

The new server's first word names the machine's token, which nobody inside knows, and a nonce. It is
written in one piece, once the agent has read all that was written before, so that it is read in one
piece as well. The agent drops what it was half told and has half said, and answers with the nonce;
whole frames follow. `spec/guest-link.md`, section 6.
"""

from __future__ import annotations

import secrets

from mitos.engine.base import ByteStream
from mitos.wire.link import NONCE_SIZE, LinkError

__all__ = ["Takeover"]

MOST_BYTES = 128 << 20
"""What an agent may say before it answers: it may owe every stream of its old server its credit."""


class Takeover:
    """The first word to an agent, and the search for its answer.

    Args:
        stream: the machine's bytes.
        token: what the agent was told when it was identified.
    """

    def __init__(self, stream: ByteStream, token: str) -> None:
        self._stream = stream
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self._word = token.encode() + self._nonce
        self._tail = b""
        self._dropped = 0

    async def announce(self) -> None:
        """Says the first word, when the agent is ready to hear it.

        Raises:
            ConnectionError: the machine is gone.
        """
        await self._stream.drained()
        await self._stream.write(self._word)

    def find(self, data: bytes) -> bytes | None:
        """The bytes behind the answer; None while it has not come, and all before it is dropped.

        Raises:
            LinkError: more was said than an agent has to say.
        """
        searched = self._tail + data
        at = searched.find(self._nonce)
        if at >= 0:
            return searched[at + NONCE_SIZE :]
        self._tail = searched[-(NONCE_SIZE - 1) :]
        self._dropped += len(data)
        if self._dropped > MOST_BYTES:
            raise LinkError("an answer to a new server does not come")
        return None
