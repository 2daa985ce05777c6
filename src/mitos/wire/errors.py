"""The error table: every code a server may send, and the exception that carries one.

One row per code of the published catalogue: HTTP status, Connect code, whether a retry can help,
the text that tells a person what to do next, and the context keys it may carry. The server renders
a row as the `/v1` envelope or as a Connect error; `mitos.errors` maps rows back to the SDK's
classes. Standard library only, since the SDK imports it too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "CONFLICT",
    "CONNECT_STATUS",
    "ERROR_INFO_DOMAIN",
    "TABLE",
    "ApiError",
    "ConnectCode",
    "ErrorRow",
    "bad_member",
    "conflict",
]

ERROR_INFO_DOMAIN = "mitos.run"
"""Domain of the `google.rpc.ErrorInfo` detail that carries our code through Connect."""


class ConnectCode(str, enum.Enum):
    """The codes of the Connect protocol."""

    CANCELED = "canceled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out_of_range"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATA_LOSS = "data_loss"
    UNAUTHENTICATED = "unauthenticated"


CONNECT_STATUS: Mapping[ConnectCode, int] = {
    ConnectCode.CANCELED: 499,
    ConnectCode.UNKNOWN: 500,
    ConnectCode.INVALID_ARGUMENT: 400,
    ConnectCode.DEADLINE_EXCEEDED: 504,
    ConnectCode.NOT_FOUND: 404,
    ConnectCode.ALREADY_EXISTS: 409,
    ConnectCode.PERMISSION_DENIED: 403,
    ConnectCode.RESOURCE_EXHAUSTED: 429,
    ConnectCode.FAILED_PRECONDITION: 400,
    ConnectCode.ABORTED: 409,
    ConnectCode.OUT_OF_RANGE: 400,
    ConnectCode.UNIMPLEMENTED: 501,
    ConnectCode.INTERNAL: 500,
    ConnectCode.UNAVAILABLE: 503,
    ConnectCode.DATA_LOSS: 500,
    ConnectCode.UNAUTHENTICATED: 401,
}
"""HTTP status of a unary Connect error, from the Connect protocol's own table."""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """What is fixed about one code.

    Attributes:
        code: the catalogue code.
        status: HTTP status on `/v1`.
        connect: Connect code on the runtime service.
        retryable: True when the same request may succeed later.
        remediation: the next action, used when the raiser has nothing better.
        context: keys the error may carry.
    """

    code: str
    status: int
    connect: ConnectCode
    retryable: bool
    remediation: str
    context: tuple[str, ...] = ()


_C = ConnectCode

_ROWS = (
    ErrorRow("body_too_large", 413, _C.RESOURCE_EXHAUSTED, False,
             "Send a smaller body; files go through files.write or Upload, in parts."),
    ErrorRow("budget_exhausted", 403, _C.PERMISSION_DENIED, False,
             "Ask the owner of the sandbox for a larger allowance.",
             ("sandbox", "dimension", "remaining")),
    ErrorRow("build_failed", 422, _C.FAILED_PRECONDITION, False,
             "Read the cause, correct the template's step and create the template again.",
             ("step", "step_kind")),
    ErrorRow("canceled", 499, _C.CANCELED, True,
             "The caller went away; send the request again if it is still wanted.", ("sandbox",)),
    ErrorRow("exec_failed", 500, _C.INTERNAL, False,
             "Check that the program exists and can be executed inside the sandbox.", ("sandbox",)),
    ErrorRow("exec_timeout", 504, _C.DEADLINE_EXCEEDED, False,
             "Raise the timeout, or start long work in the background and poll it.",
             ("sandbox", "timeout_s")),
    ErrorRow("file_failed", 500, _C.INTERNAL, False,
             "Check the path and the free space inside the sandbox.", ("sandbox", "path")),
    ErrorRow("forbidden", 403, _C.PERMISSION_DENIED, False,
             "Use a key that has the scope this action needs.", ("op", "required_scope")),
    ErrorRow("idle_timeout", 410, _C.FAILED_PRECONDITION, False,
             "It ended at its deadline; create a new one, and keep it longer with set_timeout.",
             ("sandbox",)),
    ErrorRow("internal", 500, _C.INTERNAL, False,
             "Look at the server's log; `mitos doctor` says whether this machine is healthy."),
    ErrorRow("invalid_input", 400, _C.INVALID_ARGUMENT, False,
             "Correct the named value and send the request again."),
    ErrorRow("invalid_json", 400, _C.INVALID_ARGUMENT, False,
             "Send a JSON object as the request body."),
    ErrorRow("not_found", 404, _C.NOT_FOUND, False,
             "Check the name; list what exists with GET /v1/sandboxes or GET /v1/templates.",
             ("sandbox", "template", "path")),
    ErrorRow("quota_exceeded", 429, _C.RESOURCE_EXHAUSTED, True,
             "End sandboxes that are not needed, or raise the limit.",
             ("op", "dimension", "limit")),
    ErrorRow("rate_limited", 429, _C.RESOURCE_EXHAUSTED, True,
             "Wait for retry_after_ms and send the request again.", ("sandbox", "retry_after_ms")),
    ErrorRow("timeout_too_large", 400, _C.INVALID_ARGUMENT, False,
             "Ask for at most max_timeout_s seconds.", ("sandbox", "requested_s", "max_timeout_s")),
    ErrorRow("too_many_streams", 429, _C.RESOURCE_EXHAUSTED, True,
             "Wait for a running command of this sandbox to end, or use another sandbox.",
             ("sandbox",)),
    ErrorRow("unauthorized", 401, _C.UNAUTHENTICATED, False,
             "Send a valid key: MITOS_API_KEY, the api_key argument, or `mitos auth login`."),
)  # fmt: skip

TABLE: Mapping[str, ErrorRow] = {row.code: row for row in _ROWS}
"""The complete catalogue, by code."""


CONFLICT = ErrorRow(
    "invalid_input", 409, _C.FAILED_PRECONDITION, False,
    "Look at the state of what is named, change it, and send the request again.",
)  # fmt: skip
"""Of a request that does not fit the state of what it is about: the catalogue has no code of its
own for it.
"""


class ApiError(Exception):
    """A failure with a code of the catalogue: what `node` raises and `server` renders.

    Args:
        code: a key of `TABLE`.
        message: what failed, on what object. No secret, no payload.
        cause: why, as far as it is known.
        remediation: what to do; the row's own text when empty.
        context: values for the row's context keys.
        status: HTTP status where it differs from the row's (409 for a conflict, 501, 502, 504).
        connect: Connect code where it differs from the row's.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        cause: str = "",
        remediation: str = "",
        context: Mapping[str, str | int | float] | None = None,
        status: int | None = None,
        connect: ConnectCode | None = None,
    ) -> None:
        super().__init__(message)
        row = TABLE[code]
        self.code = code
        self.message = _text(message)
        self.cause = _text(cause)
        self.remediation = _text(remediation) or row.remediation
        self.context = {
            key: _text(value) if isinstance(value, str) else value
            for key, value in (context or {}).items()
        }
        self.status = status or row.status
        self.connect = connect or row.connect

    def envelope(self) -> dict[str, object]:
        """The `/v1` error body."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.cause:
            error["cause"] = self.cause
        error["remediation"] = self.remediation
        if self.context:
            error["context"] = self.context
        return {"error": error}


def _text(text: str) -> str:
    """As every encoding carries it: what a guest said may hold bytes that are no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def conflict(
    message: str,
    remediation: str,
    *,
    context: Mapping[str, str | int | float] | None = None,
    connect: ConnectCode | None = None,
) -> ApiError:
    """What was asked does not fit the state of what it is about; the arguments of `ApiError`."""
    return ApiError(
        CONFLICT.code,
        message,
        remediation=remediation,
        context=context,
        status=CONFLICT.status,
        connect=connect or CONFLICT.connect,
    )


def bad_member(member: str, wanted: str) -> ApiError:
    """The refusal of a request's member that is not what it must be."""
    return ApiError("invalid_input", f"{member} must be {wanted}")
