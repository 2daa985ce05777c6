"""Which calls are sent again while their server is away, and for how long. Pure.

A server that is restarted is away for a moment: connections are refused, those that were open
break, and a server that stops says that it is being restarted. What becomes of a call then:

    nothing of it was sent           it is sent again, whatever it is
    it may be repeated               it is sent again
    it may have been done, or half   it fails, with an error whose `retryable` is true

Only a server that has answered before is waited for: at another address there most likely is none.
One that did not come back in time counts as one that never answered, until it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from mitos.errors import AgentRunError, TruncatedStreamError

__all__ = ["BROKEN", "GIVE_UP_S", "Attempts", "Outage", "Patience", "is_restarting"]

GIVE_UP_S = 60.0
"""How long a server may be away before who waits for it gives up."""

FIRST_DELAY_S, LAST_DELAY_S = 0.05, 2.0

BREAK_DELAYS_S = (0.0, 0.1, 1.0)
"""Before each repetition of a call whose connection breaks again and again, with the server there
all the time: after the last one, it breaks because of the call.
"""

BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""How a connection breaks that was there; the server may or may not have seen the request."""

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)

Clock = Callable[[], float]


class Patience:
    """Delays that grow, until something has failed for too long.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """It works again."""
        self._failing_since: float | None = None
        self._delay_s = FIRST_DELAY_S

    def next_delay_s(self) -> float | None:
        """How long to wait after a failure; None when it has lasted for too long."""
        now = self._clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > GIVE_UP_S:
            return None
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, LAST_DELAY_S)
        return delay_s


class Outage:
    """What is known of a server's being there. One for all who call it.

    Args:
        clock: seconds that only grow.

    Attributes:
        has_answered: it has, and was not away for too long since.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.has_answered = False

    def attempts(self, *, may_repeat: bool) -> Attempts:
        """Those of one call.

        Args:
            may_repeat: doing it twice is as good as doing it once.
        """
        return Attempts(self, may_repeat=may_repeat)


class Attempts:
    """The attempts of one call.

    Args:
        outage: of the server.
        may_repeat: the call may be repeated.
    """

    def __init__(self, outage: Outage, *, may_repeat: bool) -> None:
        self._outage = outage
        self._may_repeat = may_repeat
        self._patience = Patience(outage.clock)
        self._breaks = 0

    def delay_after(self, failure: AgentRunError) -> float:
        """How long to wait before the call is sent again, in seconds.

        Raises:
            AgentRunError: the failure itself, when the call must not be sent again.
        """
        if self._may_repeat and isinstance(failure, (*BROKEN, TruncatedStreamError)):
            return self._delay_after_break(failure)
        is_away = self._outage.has_answered and isinstance(failure, _NOT_SENT)
        if not is_away and not (self._may_repeat and is_restarting(failure)):
            raise failure
        self._breaks = 0
        delay_s = self._patience.next_delay_s()
        if delay_s is None:
            self._outage.has_answered = False
            raise failure
        return delay_s

    def _delay_after_break(self, failure: AgentRunError) -> float:
        # A server that is killed may take a connection until its port is gone, and break that too.
        delays_s = BREAK_DELAYS_S if self._outage.has_answered else BREAK_DELAYS_S[:1]
        if self._breaks == len(delays_s):
            raise failure
        self._breaks += 1
        return delays_s[self._breaks - 1]


def is_restarting(failure: AgentRunError) -> bool:
    """True when a server says that it is being restarted: it has not done what was asked."""
    return failure.status == 503 and "retry_after_ms" in failure.context
