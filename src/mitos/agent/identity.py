"""What makes one sandbox itself: the fork handshake's content and its check.

A restored machine is a copy: same entropy, same clock reading, same names. The identity it is given
before it serves anybody makes it differ from its siblings; a machine that does not confirm it is
destroyed (fail closed).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mitos.wire.errors import ApiError
from mitos.wire.link import Fields, Tag

__all__ = ["MAX_CLOCK_SKEW_S", "Identity", "make_identity"]

MAX_CLOCK_SKEW_S = 1.0
"""How far a sandbox's clock may be outside the time in which it was asked for it."""

ENTROPY_SIZE = 64

_SELF_SERVICE = {"MITOS_SOCKET": "/run/mitos.sock"}
"""Where the agent listens; the variable `mitos.guest` looks for."""


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Names and fresh randomness of one sandbox. Has no useful repr: it holds secrets."""

    sandbox_id: str
    generation: bytes
    entropy: bytes
    machine_id: str
    token: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def fields(self, *, forked: bool) -> Fields:
        """The payload of `IDENTIFY`, with the host's clock as of now."""
        fields = (
            Fields()
            .text(Tag.SANDBOX_ID, self.sandbox_id)
            .raw(Tag.GENERATION, self.generation)
            .raw(Tag.ENTROPY, self.entropy)
            .uint(Tag.WALL_CLOCK, time.time_ns())
            .text(Tag.HOSTNAME, hostname(self.sandbox_id))
            .text(Tag.MACHINE_ID, self.machine_id)
            .text(Tag.TOKEN, self.token)
            .uint(Tag.FORKED, int(forked))
        )
        variables = {**self.environment, "MITOS_SANDBOX_ID": self.sandbox_id, **_SELF_SERVICE}
        return fields.texts(Tag.ENV, (f"{k}={v}" for k, v in variables.items()))

    def check(self, answer: Fields, *, sent_ns: int, received_ns: int) -> None:
        """Confirms that the machine took this identity.

        Its clock is right when it lies between the host's before the question and after the answer,
        however long that took: on a busy host an answer may come late.

        Args:
            answer: what the agent said.
            sent_ns: the host's clock when it was asked.
            received_ns: the host's clock when it had answered.

        Raises:
            ApiError: another generation, or a clock that is off.
        """
        if answer.get_raw(Tag.GENERATION) != self.generation:
            raise ApiError("internal", "the sandbox confirmed another generation than its own")
        clock_ns = answer.get_uint(Tag.WALL_CLOCK)
        skew_s = max(sent_ns - clock_ns, clock_ns - received_ns) / 1e9
        if skew_s > MAX_CLOCK_SKEW_S:
            raise ApiError("internal", f"the sandbox's clock is off by {skew_s:.1f} s")


def hostname(sandbox_id: str) -> str:
    """A host name from a sandbox id: underscores are not allowed in host names."""
    return sandbox_id.replace("_", "-").strip("-").lower()


def make_identity(
    sandbox_id: str,
    random_bytes: Callable[[int], bytes],
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    token: str | None = None,
) -> Identity:
    """A new identity.

    Args:
        sandbox_id: whose it is.
        random_bytes: must be cryptographically strong.
        environment: variables of the sandbox.
        token: by which a later server takes the link over; None: none can.
    """
    return Identity(
        sandbox_id=sandbox_id,
        generation=random_bytes(16),
        entropy=random_bytes(ENTROPY_SIZE),
        machine_id=random_bytes(16).hex(),
        token=random_bytes(32).hex() if token is None else token,
        environment=environment,
    )
