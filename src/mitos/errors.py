"""What the SDK raises.

    AgentRunError                      every failure of a call; carries code, cause, remediation
    ├── NotFoundError                  not_found          404
    ├── UnauthorizedError              unauthorized       401
    ├── IdleTimeoutError               idle_timeout       410   the sandbox ended at its deadline
    ├── ExecutionDeadlineError         exec_timeout       504   a command ran into its timeout
    ├── RequestCanceledError           canceled           499
    ├── RateLimitedError               rate_limited       429
    ├── TimeoutTooLargeError           timeout_too_large  400
    ├── ExecFailedError                exec_failed              also a RuntimeError
    ├── TruncatedStreamError           truncated_stream         also a RuntimeError
    └── TransportFailedError           connection_failed        also the httpx class it came from

Catch `AgentRunError` for everything, or a class for one case; `code` is stable, the texts are not.
`retryable` says whether the same call may succeed later.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AgentRunError",
    "ExecFailedError",
    "ExecutionDeadlineError",
    "IdleTimeoutError",
    "NotFoundError",
    "RateLimitedError",
    "RequestCanceledError",
    "TimeoutTooLargeError",
    "TransportFailedError",
    "TruncatedStreamError",
    "UnauthorizedError",
    "error_for_code",
]


class AgentRunError(Exception):
    """A call that failed.

    Args:
        message: what failed.
        code: stable name of the kind of failure, such as `not_found`.
        cause: why, as far as it is known.
        remediation: what to do about it.
        status: HTTP status, or None when no answer came.
        context: ids and numbers that belong to the failure.

    Example:
        >>> str(AgentRunError("no such file", "not_found", remediation="Check the path."))
        '[not_found] no such file | remediation: Check the path.'
    """

    def __init__(
        self,
        message: str,
        code: str,
        cause: str = "",
        remediation: str = "",
        status: int | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        Exception.__init__(self, message)
        self.code = code
        self.cause = cause
        self.remediation = remediation
        self.status = status
        self.context: dict[str, Any] = {} if context is None else context

    @property
    def retryable(self) -> bool:
        """True when the same call may succeed later: the moment was wrong, not the call.

        What was sent may have been done nevertheless: where the class is `TruncatedStreamError` or
        `TransportFailedError`, look before it is done twice.
        """
        from mitos.wire.errors import TABLE  # noqa: PLC0415  keeps `import mitos` quick

        row = TABLE.get(self.code)
        return self.status in (429, 503) or (row is not None and row.retryable)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with all of its fields, to be raised in another process."""
        fields = (self.args[0], self.code, self.cause, self.remediation, self.status, self.context)
        return type(self), fields

    def __str__(self) -> str:
        text = f"[{self.code}] {self.args[0]}"
        if self.cause:
            text += f" | cause: {self.cause}"
        if self.remediation:
            text += f" | remediation: {self.remediation}"
        return text


class IdleTimeoutError(AgentRunError):
    """The sandbox ended at its deadline or for idleness."""


class ExecutionDeadlineError(AgentRunError):
    """A command or request ran into its timeout; `context["timeout_s"]` is in seconds."""


class RequestCanceledError(AgentRunError):
    """The server took the request as canceled."""


class RateLimitedError(AgentRunError):
    """Too many requests; `context["retry_after_ms"]` says how long to wait."""


class NotFoundError(AgentRunError):
    """No such sandbox, template or file."""


class UnauthorizedError(AgentRunError):
    """The key is missing or wrong."""


class TimeoutTooLargeError(AgentRunError):
    """The timeout is over the ceiling; `context` has `requested_s` and `max_timeout_s`."""


class ExecFailedError(AgentRunError, RuntimeError):
    """The command never ran."""


class TruncatedStreamError(AgentRunError, RuntimeError):
    """The answer ended before its last message: the outcome is not known."""

    @property
    def retryable(self) -> bool:
        """True: the connection or the server ended, not the call."""
        return True


class TransportFailedError(AgentRunError):
    """No answer came. The instance is also of the httpx class that describes it."""

    @property
    def retryable(self) -> bool:
        """True: the connection or the server was at fault, not the call."""
        return True


_CLASSES: dict[str, type[AgentRunError]] = {
    "idle_timeout": IdleTimeoutError,
    "exec_timeout": ExecutionDeadlineError,
    "canceled": RequestCanceledError,
    "rate_limited": RateLimitedError,
    "not_found": NotFoundError,
    "unauthorized": UnauthorizedError,
    "unauthenticated": UnauthorizedError,
    "timeout_too_large": TimeoutTooLargeError,
    "exec_failed": ExecFailedError,
}


def error_for_code(
    code: str,
    message: str,
    *,
    cause: str = "",
    remediation: str = "",
    status: int | None = None,
    context: dict[str, Any] | None = None,
) -> AgentRunError:
    """The error of the class that fits the code; an unknown code gives the base class.

    Example:
        >>> error_for_code("not_found", "no such sandbox", status=404)
        NotFoundError('no such sandbox')
    """
    kind = _CLASSES.get(code, AgentRunError)
    return kind(message, code, cause, remediation, status, context)
