"""From what a server answered, or did not, to the error that is raised. Pure."""

from __future__ import annotations

import json
from typing import Any, cast

import httpx

from mitos._sdk import error_info
from mitos.errors import AgentRunError, TransportFailedError, error_for_code
from mitos.wire.errors import CONNECT_STATUS, TABLE, ConnectCode

__all__ = [
    "fork_timed_out",
    "from_connect",
    "from_control_plane",
    "from_runtime",
    "invalid_response",
    "redact",
    "transport_failed",
]

_REDACTED = "[REDACTED]"
_BODY_LIMIT = 2000

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

_COMBINED: dict[type[httpx.TransportError], type[TransportFailedError]] = {}

_CONNECT_TO_CODE = {
    ConnectCode.DEADLINE_EXCEEDED: "exec_timeout",
    ConnectCode.RESOURCE_EXHAUSTED: "too_many_streams",
}
"""Connect codes whose name in the SDK is another one."""


def redact(value: Any, api_key: str | None) -> Any:
    """The value with every occurrence of the key replaced, at every depth."""
    if not api_key:
        return value
    if isinstance(value, str):
        return value.replace(api_key, _REDACTED)
    if isinstance(value, list):
        return [redact(item, api_key) for item in value]
    if isinstance(value, dict):
        return {redact(key, api_key): redact(item, api_key) for key, item in value.items()}
    return value


def from_control_plane(status: int, body: bytes, api_key: str | None) -> AgentRunError:
    """The error of a `/v1` answer that is not 2xx."""
    text = redact(body.decode("utf-8", "replace"), api_key)
    fields: dict[str, Any] = {
        "code": _code_of_status(status),
        "message": f"the server answered HTTP {status} ({_code_of_status(status)})",
        "cause": text[:_BODY_LIMIT] or f"HTTP {status}",
        "remediation": _remediation_of_status(status),
    }
    context: dict[str, Any] | None = None
    error = _json_object(text).get("error")
    if isinstance(error, str):
        fields["cause"] = error
    elif isinstance(error, dict):
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
        f"the server answered HTTP {status}",
        "internal_error",
        cause=redact(text[:_BODY_LIMIT], api_key) or f"HTTP {status}",
        remediation=_remediation_of_status(status),
        status=status,
    )


def from_connect(error: dict[str, Any], api_key: str | None, *, status: int = 500) -> AgentRunError:
    """The error of a Connect error object; the catalogue code in its details wins."""
    error = redact(error, api_key)
    name = str(error.get("code") or "")
    cause = str(error.get("message") or "")
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
    info = error_info.find(error.get("details"))
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
    return error_for_code(
        row.code,
        cause or f"the sandbox service failed with {row.code}",
        cause=details.pop("cause", "") or cause,
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


def transport_failed(
    exc: httpx.TransportError, base_url: str, api_key: str | None
) -> AgentRunError:
    """The error when no answer came: ours, and of the httpx class too."""
    cause = redact(str(exc) or type(exc).__name__, api_key)
    if isinstance(exc, httpx.TimeoutException):
        message = f"no answer from {base_url} in time"
        remediation = "Check the server's load and log; give long work a larger timeout."
    else:
        message = f"cannot reach the server at {base_url}"
        remediation = (
            "Check that the server runs (`mitos serve`) and MITOS_BASE_URL or base_url names it."
        )
    error = _class_with(type(exc))(
        redact(message, api_key), "connection_failed", cause, remediation
    )
    # httpx keeps the request here; its own property raises without it.
    error._request = getattr(exc, "_request", None)  # type: ignore[attr-defined]
    return error


def _class_with(httpx_class: type[httpx.TransportError]) -> type[TransportFailedError]:
    """Our class and httpx's in one, made once for each of httpx's."""
    if httpx_class not in _COMBINED:
        bases = (TransportFailedError, httpx_class)
        combined = type(TransportFailedError.__name__, bases, {"__doc__": httpx_class.__doc__})
        _COMBINED[httpx_class] = cast("type[TransportFailedError]", combined)
    return _COMBINED[httpx_class]


def fork_timed_out(deadline_s: float) -> AgentRunError:
    """The error when a fork did not answer in time; the transport's error is its `__cause__`."""
    return AgentRunError(
        f"the fork did not come up within {deadline_s:.0f} s",
        "fork_unavailable",
        remediation="The server is overloaded or out of capacity: retry with backoff.",
    )


def _code_of_status(status: int) -> str:
    return _CODES.get(status) or ("server_error" if status >= 500 else "request_failed")


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
    return int(text) if text.isascii() and text.lstrip("-").isdigit() else text
