"""Where the reading of a command stands, and when to connect again. Pure; shared by both forms.

A connection that breaks before the server has said anything leaves open whether the command was
started. To start it again could run it twice, so it is looked for first: a server that has it goes
on with it, one that does not says so and is asked to start it, and one that knows no ids says
nothing of one and runs the empty command that comes with the question.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from mitos._sdk.failure import truncated
from mitos._sdk.folding import ExecFold
from mitos._sdk.outage import BROKEN, Patience, is_restarting
from mitos._sdk.value.command import ExecResult
from mitos.errors import AgentRunError, TransportFailedError, TruncatedStreamError

__all__ = ["Progress"]

_NUMBER = re.compile(r"[0-9]{1,19}")


class Progress:
    """How much of a command's output has come, over all its connections.

    Args:
        fold: takes the output.
        attaches: the command is there already; False starts it.
        clock: seconds that only grow.

    Attributes:
        on_started: called when the server has said that the command is there.
        lost_bytes: output that the sandbox had dropped before it could be read.
        is_killed: its connection was cut to end it; it has no exit of its own.
    """

    def __init__(
        self, fold: ExecFold, *, attaches: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fold = fold
        self._patience = Patience(clock)
        self._attaches = attaches
        self._can_resume = False
        self._is_answered = False
        self._doubt: AgentRunError | None = None
        self._offset = 0
        self.lost_bytes = 0
        self.is_killed = False
        self.on_started: Callable[[], None] = _nothing

    @property
    def has_ended(self) -> bool:
        """True once the command's exit has come."""
        return self._fold.has_ended

    @property
    def attaches(self) -> bool:
        """True when the command is looked for; False when it is to be started."""
        return self._attaches or self._doubt is not None

    @property
    def can_resume(self) -> bool:
        """True once the server has said that it keeps the command."""
        return self._can_resume

    def headers(self, command_id: str) -> dict[str, str]:
        """What to send: to start the command, or to read it from where the last reading ended."""
        if not self.attaches:
            return {"X-Command-Id": command_id, "X-Command-Keep": "true"}
        return {"X-Command-Id": command_id, "X-Command-Offset": str(self._offset)}

    def take_headers(self, headers: Mapping[str, str]) -> None:
        """Takes what an answer says ahead of the output.

        Without the command's id it is an error, or a server's that keeps no commands.
        """
        self._is_answered = True
        if "x-command-id" not in headers:
            return
        self._attaches = self._can_resume = True
        self._doubt = None
        self._note_life()
        self._offset = _number(headers.get("x-command-offset")) or self._offset
        self.lost_bytes += _number(headers.get("x-command-lost"))

    def take(self, message: dict[str, Any]) -> None:
        """Takes the next message.

        Raises:
            AgentRunError: it is of no command that was looked for; that may have begun or not.
        """
        if self._doubt is not None:
            raise self._doubt
        self._note_life()
        self._offset += self._fold.take(message)

    def result(self) -> ExecResult:
        """The command's result, once a stream has come to its end.

        Raises:
            TruncatedStreamError: it ended without an exit; connect again.
            ExecFailedError: the command never ran.
        """
        if not self._fold.has_ended:
            raise truncated("exec")
        return self._fold.result()

    def killed_result(self) -> ExecResult:
        """The result of a command whose connection was cut: its output so far, and exit code -1."""
        if not self._fold.has_ended:
            self._fold.take({"exit": {"exitCode": -1}})
        return self._fold.result()

    def delay_after(self, failure: AgentRunError) -> float:
        """How long to wait before connecting again, in seconds.

        Raises:
            AgentRunError: the failure itself, when another connection cannot help.
        """
        if self._doubt is not None and failure.status == 404:
            self._doubt = None  # it was not started; nor is anything, if its sandbox is gone
            return 0.0
        if self._fold.has_ended or not self._can_reconnect(failure):
            raise failure
        if _stands_still(failure):
            self._patience.renew()
        delay_s = self._patience.next_delay_s()
        if delay_s is None:
            raise failure
        return delay_s

    def _can_reconnect(self, failure: AgentRunError) -> bool:
        if self._can_resume or self._doubt is not None:
            is_broken = isinstance(failure, (TransportFailedError, TruncatedStreamError))
            is_away = is_broken or failure.status == 503 or _stands_still(failure)
            return failure is not self._doubt and is_away
        # A server that has answered without an id may have begun it, under none that it knows.
        is_open = isinstance(failure, BROKEN) and not self._is_answered
        if is_open or is_restarting(failure):
            self._doubt = failure
        return self._doubt is not None

    def _note_life(self) -> None:
        self.on_started()
        self._patience.renew()


def _stands_still(failure: AgentRunError) -> bool:
    """True when the sandbox is paused: nothing else makes an attach unfit that was fit before."""
    return failure.code == "invalid_input"


def _nothing() -> None:
    pass


def _number(value: str | None) -> int:
    return int(value) if value and _NUMBER.fullmatch(value) else 0
