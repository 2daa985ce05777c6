"""From what a server answered, or did not, to the error that is raised. Pure."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, cast

import httpx

from mitos._sdk import error_info
from mitos.errors import (
    AgentRunError,
    ExecFailedError,
    TransportFailedError,
    TruncatedStreamError,
    error_for_code,
)
from mitos.wire.errors import CONNECT_STATUS, TABLE, ConnectCode

__all__ = [
    "exec_failed",
    "fork_timed_out",
    "from_connect",
    "from_control_plane",
    "from_runtime",
    "invalid_response",
    "is_missing_route",
    "malformed",
    "redact",
    "translated",
    "transport_failed",
    "truncated",
]

_REDACTED = "[REDACTED]"
_BODY_LIMIT = 2000
_NUMBER = re.compile(r"-?[0-9]{1,19}")

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "request_too_large",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}

_REMEDIATIONS = {
    400: "Correct the request's values.",
    401: "Set a valid key: MITOS_API_KEY, the api_key argument, or `mitos auth login`.",
    403: "Use a key that may do this.",
    404: "Check the id or path, and that base_url names the right server.",
    409: "Wait for the conflicting request to end, or choose another id.",
    413: "Send less in one request.",
    429: "Wait a moment and try again.",
}
_REMEDIATION_SERVER = "Try again; if it persists, look at the server's log."
_REMEDIATION_OTHER = "Check that base_url names a Mitos server."

_CLASSES: dict[type[httpx.RequestError], type[TransportFailedError]] = {}

_CONNECT_TO_CODE = {
    ConnectCode.DEADLINE_EXCEEDED: "exec_timeout",
    ConnectCode.RESOURCE_EXHAUSTED: "too_many_streams",
}
"""Connect codes whose name in the SDK is another one."""


def redact(value: Any, api_key: str | None) -> Any:
    """The value with the key replaced wherever it occurs, also as JSON spells it, at any depth."""
    if not api_key:
        return value
    try:
        return _redact(value, (api_key, json.dumps(api_key)[1:-1]))
    except RecursionError:
        return _REDACTED


def _redact(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _REDACTED)
        return value
    if isinstance(value, list):
        return [_redact(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_redact(key, secrets): _redact(item, secrets) for key, item in value.items()}
    return value


def from_control_plane(status: int, body: bytes, api_key: str | None) -> AgentRunError:
    """The error of a `/v1` answer that is not 2xx."""
    text = body.decode("utf-8", "replace")
    fields: dict[str, Any] = {
        "code": _code_of_status(status),
        "message": _message_of_status(status),
        "cause": redact(text, api_key)[:_BODY_LIMIT] or f"HTTP {status}",
        "remediation": _remediation_of_status(status),
    }
    context: dict[str, Any] | None = None
    error = redact(_json_object(text).get("error"), api_key)
    if isinstance(error, str):
        fields["cause"] = error
    elif isinstance(error, dict):
        if _is_text(error.get("message")):
            fields["cause"] = f"HTTP {status}"  # the body's text would only say it all again
        fields |= {name: error[name] for name in fields if _is_text(error.get(name))}
        context = error["context"] if isinstance(error.get("context"), dict) else None
    return error_for_code(status=status, context=context, **fields)


def from_runtime(status: int, body: bytes, api_key: str | None) -> AgentRunError:
    """The error of a runtime answer that is not 2xx: a Connect error, else a `/v1` envelope."""
    text = body.decode("utf-8", "replace")
    content = _json_object(text)
    if isinstance(content.get("code"), str):
        return from_connect(content, api_key, status=status)
    if isinstance(content.get("error"), dict):
        return from_control_plane(status, body, api_key)
    return AgentRunError(
        _message_of_status(status),
        "internal_error",
        cause=redact(text, api_key)[:_BODY_LIMIT] or f"HTTP {status}",
        remediation=_remediation_of_status(status),
        status=status,
    )


def from_connect(error: dict[str, Any], api_key: str | None, *, status: int = 500) -> AgentRunError:
    """The error of a Connect error object; the catalogue code in its details wins."""
    info = error_info.find(error.get("details"))
    name = redact(str(error.get("code") or ""), api_key)
    cause = redact(str(error.get("message") or ""), api_key)
    try:
        connect = ConnectCode(name)
    except ValueError:
        code = name or "internal_error"
        return error_for_code(
            code,
            f"the sandbox service failed with {code}",
            cause=cause,
            remediation=_remediation_of_status(status),
            status=status,
        )
    status = CONNECT_STATUS[connect]
    row = TABLE.get(info.reason) if info else None
    if info is None or row is None:
        return error_for_code(
            _CONNECT_TO_CODE.get(connect, name),
            f"the sandbox service failed with {name}",
            cause=cause,
            remediation=_remediation_of_status(status),
            status=status,
        )
    details = dict(redact(info.metadata, api_key))
    message = f"the sandbox service failed with {row.code}"
    if why := details.pop("cause", ""):
        # For clients that read nothing but the message, the server puts the cause there too.
        message, cause = cause.removesuffix(f": {why}") or message, why
    return error_for_code(
        row.code,
        message,
        cause=cause,
        remediation=details.pop("remediation", "") or row.remediation,
        status=row.status if connect is row.connect else status,
        context={key: _number_or_text(value) for key, value in details.items()},
    )


def invalid_response(body: bytes, api_key: str | None) -> AgentRunError:
    """The error of a 2xx answer that is not what it should be."""
    text = redact(body.decode("utf-8", "replace"), api_key)
    remediation = "Check MITOS_BASE_URL (or base_url): it must name a Mitos server."
    if text.lstrip()[:1] == "<":
        remediation += " This looks like a web page: use the API's host, not the website's."
    return AgentRunError(
        "the server's answer could not be understood",
        "invalid_response",
        cause=text[:_BODY_LIMIT],
        remediation=remediation,
    )


def truncated(what: str) -> TruncatedStreamError:
    """The error of a stream that ended before its last message."""
    return TruncatedStreamError(
        f"the {what} stream ended before its result",
        "truncated_stream",
        cause="the connection or the server ended in mid-answer; the outcome is not known",
        remediation="Check the server's log; before repeating the call, look at what it did.",
    )


def malformed(what: str) -> AgentRunError:
    """The error of a message whose shape is not the service's."""
    return AgentRunError(
        f"the server sent {what} that is not of the sandbox service's form",
        "internal_error",
        remediation="Check that server and SDK are of matching versions.",
        status=500,
    )


def is_missing_route(error: AgentRunError) -> bool:
    """True when the server does not know the route, rather than what the route was about."""
    if error.status in (405, 501):
        return True
    message = str(error.args[0])
    if error.status != 404 or message == _message_of_status(404):
        return error.status == 404
    words = message.lower()
    names_route = "route" in words or "operation" in words
    return names_route and "sandbox" not in words and "pool" not in words


@contextlib.contextmanager
def translated(base_url: str, api_key: str | None) -> Iterator[None]:
    """The transport's errors come out as ours."""
    try:
        yield
    except httpx.RequestError as exc:
        raise transport_failed(exc, base_url, api_key) from exc


def transport_failed(exc: httpx.RequestError, base_url: str, api_key: str | None) -> AgentRunError:
    """The error when no answer came: ours, and of the httpx class too."""
    cause = redact(str(exc) or type(exc).__name__, api_key)
    message, remediation = _what_to_check(exc, base_url)
    return _combined(type(exc), redact(message, api_key), cause, remediation, exc)


def _what_to_check(exc: httpx.RequestError, base_url: str) -> tuple[str, str]:
    if isinstance(exc, httpx.PoolTimeout):
        return (
            f"all connections to {base_url} stayed busy",
            "Run fewer calls at once, or spread them over processes.",
        )
    if isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout):
        return (
            f"no answer from {base_url} in time",
            "Check the server's load and log; give long work a larger timeout.",
        )
    if isinstance(exc, httpx.TransportError):
        return (
            f"cannot reach the server at {base_url}",
            "Check that the server runs (`mitos serve`) and MITOS_BASE_URL or base_url names it.",
        )
    return (
        f"the answer from {base_url} could not be read",
        "Check that nothing between client and server rewrites responses.",
    )


def _combined(
    httpx_class: type[httpx.RequestError],
    message: str,
    cause: str,
    remediation: str,
    exc: httpx.RequestError | None = None,
) -> TransportFailedError:
    """An error of our class and httpx's. Also what such an error is unpickled with."""
    error = _class_with(httpx_class)(message, "connection_failed", cause, remediation)
    # httpx keeps the request here; its own property raises without it.
    error._request = getattr(exc, "_request", None)  # type: ignore[attr-defined]
    return error


def _class_with(httpx_class: type[httpx.RequestError]) -> type[TransportFailedError]:
    """Our class and httpx's in one, made once for each of httpx's."""
    if found := _CLASSES.get(httpx_class):
        return found

    def reduce(self: TransportFailedError) -> tuple[Any, ...]:
        return _combined, (httpx_class, self.args[0], self.cause, self.remediation)

    name = TransportFailedError.__name__
    members = {"__doc__": httpx_class.__doc__, "__module__": __name__, "__reduce__": reduce}
    made = type(name, (TransportFailedError, httpx_class), members)
    return _CLASSES.setdefault(httpx_class, cast("type[TransportFailedError]", made))


def exec_failed(cause: object, api_key: str | None = None) -> ExecFailedError:
    """The error of a command or shell that never ran."""
    return ExecFailedError(
        "the command could not be run",
        "exec_failed",
        cause=redact(str(cause), api_key),
        remediation="Check that program and working directory exist in the sandbox.",
    )


def fork_timed_out(deadline_s: float) -> AgentRunError:
    """The error when a fork did not answer in time; the transport's error is its `__cause__`."""
    return AgentRunError(
        f"the fork did not come up within {deadline_s:.0f} s",
        "fork_unavailable",
        remediation="The server is overloaded or out of capacity: retry with backoff.",
    )


def _code_of_status(status: int) -> str:
    return _CODES.get(status) or ("server_error" if status >= 500 else "request_failed")


def _message_of_status(status: int) -> str:
    return f"the server answered HTTP {status} ({_code_of_status(status)})"


def _remediation_of_status(status: int) -> str:
    if status >= 500:
        return _REMEDIATION_SERVER
    return _REMEDIATIONS.get(status, _REMEDIATION_OTHER)


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _number_or_text(text: str) -> int | str:
    """Context travels as text in a detail; whole numbers come back as numbers."""
    return int(text) if _NUMBER.fullmatch(text) else text
