"""Errors on the wire: the `/v1` envelope, pages for browsers, and Connect errors with our code.

What is not an `ApiError` is a bug of ours: it is logged with its traceback and told to the client
as `internal`, without its text.
"""

from __future__ import annotations

import contextlib
import html
import logging
from collections.abc import Iterator

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from mitos.node.refusal import HOST_FAULTS, storage_failed
from mitos.server.journal import note_code
from mitos.wire._generated.google.rpc.error_info_pb import ErrorInfo
from mitos.wire.errors import ERROR_INFO_DOMAIN, ApiError

__all__ = [
    "answer",
    "answer_page",
    "connect_error",
    "connect_errors",
    "envelope_response",
    "internal_error",
]

_log = logging.getLogger(__name__)


def envelope_response(error: ApiError) -> JSONResponse:
    """The error as a `/v1` answer."""
    note_code(error.code)
    return JSONResponse(error.envelope(), error.status, _retry_after(error))


def _retry_after(error: ApiError) -> dict[str, str] | None:
    """When a request may be sent again (RFC 9110, section 10.2.3), of one that may help then."""
    if error.status not in (429, 503):
        return None
    wait_ms = int(error.context.get("retry_after_ms", 1000))
    return {"Retry-After": str(max(-(-wait_ms // 1000), 1))}


def internal_error(exc: Exception) -> ApiError:
    """A bug of ours as an error of the catalogue; its traceback goes to the log.

    A disk or descriptor that is missing is no bug, wherever it is noticed.
    """
    if isinstance(exc, OSError) and exc.errno in HOST_FAULTS:
        return storage_failed(exc, "the server failed to handle the request")
    _log.error("unexpected error", exc_info=exc)
    return ApiError("internal", "the server failed to handle the request")


async def answer(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answers a request with the envelope; a WebSocket is not opened."""
    await _send(envelope_response(error), scope, receive, send)


async def answer_page(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Answers a request for a port: a page, the envelope or a line of text, as the client asks."""
    note_code(error.code)
    accepted = Headers(scope=scope).get("accept", "")
    response: Response
    if scope["type"] == "websocket":
        response = envelope_response(error)
    elif "text/html" in accepted:
        response = HTMLResponse(_page(error), status_code=error.status)
    elif "application/json" in accepted:
        response = envelope_response(error)
    else:
        text = f"{error.message}\n{error.remediation}\n"
        response = PlainTextResponse(text, status_code=error.status)
    await _send(response, scope, receive, send)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    start = {"type": "websocket.http.response.start", "status": response.status_code}
    await send({**start, "headers": response.raw_headers})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})


def _page(error: ApiError) -> str:
    parts = (error.message, error.cause, error.remediation)
    title, cause, remediation = (html.escape(part) for part in parts)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{error.status} {title}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:40em;margin:15vh auto;padding:0 1em}"
        "small{color:#666}</style>"
        f"<h1>{title[:1].upper()}{title[1:]}</h1><p>{cause}</p><p>{remediation}</p>"
        f"<small>{error.status} {error.code}</small></html>\n"
    )


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


@contextlib.contextmanager
def connect_errors() -> Iterator[None]:
    """Turns what the node raises into Connect errors, at the runtime service's edge."""
    try:
        yield
    except ApiError as exc:
        raise connect_error(exc) from exc
    except ConnectError:
        raise
    except Exception as exc:
        raise connect_error(internal_error(exc)) from exc
