"""The node's errors on the wire: the `/v1` envelope, and Connect errors with our code inside.

What is not an `ApiError` is a bug of ours: it is logged with its traceback and told to the client
as `internal`, without its text.
"""

from __future__ import annotations

import logging

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from starlette.responses import JSONResponse

from mitos.server.journal import note_code
from mitos.wire._generated.google.rpc.error_info_pb import ErrorInfo
from mitos.wire.errors import ERROR_INFO_DOMAIN, ApiError

__all__ = ["connect_error", "envelope_response", "internal_error"]

_log = logging.getLogger(__name__)


def envelope_response(error: ApiError) -> JSONResponse:
    """The error as a `/v1` answer."""
    note_code(error.code)
    return JSONResponse(error.envelope(), status_code=error.status)


def internal_error(exc: Exception) -> ApiError:
    """A bug of ours as an error of the catalogue; its traceback goes to the log."""
    _log.error("unexpected error", exc_info=exc)
    return ApiError("internal", "the server failed to handle the request")


def connect_error(error: ApiError) -> ConnectError:
    """The error for the runtime service; published clients read code and message only."""
    note_code(error.code)
    metadata = {"remediation": error.remediation}
    if error.cause:
        metadata["cause"] = error.cause
    metadata |= {key: str(value) for key, value in error.context.items()}
    info = ErrorInfo(reason=error.code, domain=ERROR_INFO_DOMAIN, metadata=metadata)
    message = f"{error.message}: {error.cause}" if error.cause else error.message
    return ConnectError(Code(error.connect.value), message, [info])
