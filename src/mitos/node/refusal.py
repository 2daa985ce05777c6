"""What a node says when it refuses: one function for each reason several operations share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mitos.engine.base import EngineError, EngineFault
from mitos.wire.errors import ApiError, ConnectCode, conflict

__all__ = [
    "busy",
    "check_timeout",
    "engine_errors",
    "id_in_use",
    "not_running",
    "translate",
    "unknown_template",
]

_CODE_OF_FAULT = {
    EngineFault.UNAVAILABLE: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.UNSUPPORTED: ("internal", ConnectCode.UNIMPLEMENTED),
    EngineFault.NO_SPACE: ("quota_exceeded", ConnectCode.RESOURCE_EXHAUSTED),
    EngineFault.TIMED_OUT: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.FAILED: ("internal", ConnectCode.INTERNAL),
}


def translate(error: EngineError, what: str) -> ApiError:
    """An engine's error as one of the catalogue."""
    code, connect = _CODE_OF_FAULT[error.fault]
    return ApiError(code, what, cause=str(error), remediation=error.remediation, connect=connect)


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turns the engine's errors into ours, at the node's edge."""
    try:
        yield
    except EngineError as exc:
        raise translate(exc, what) from exc


def unknown_template(template_id: str) -> ApiError:
    """No such template."""
    return ApiError(
        "not_found",
        f"no template named {template_id!r}",
        remediation="Create it first: POST /v1/templates.",
        context={"template": template_id},
    )


def id_in_use(sandbox_id: str) -> ApiError:
    """Another sandbox has the id."""
    return conflict(
        f"a sandbox named {sandbox_id} exists already",
        "Choose another id, or terminate that sandbox first.",
        context={"sandbox": sandbox_id},
    )


def busy(sandbox_id: str, action: str) -> ApiError:
    """Calls are open that the action would cut off."""
    return conflict(
        f"sandbox {sandbox_id} has open calls and cannot be {action}",
        "Close its commands, terminals and transfers, or wait for them, then try again.",
        context={"sandbox": sandbox_id},
    )


def not_running(sandbox_id: str, phase: str) -> ApiError:
    """The sandbox stands still, and what was asked needs it to run."""
    return conflict(
        f"sandbox {sandbox_id} is {phase.lower()}",
        "Resume the sandbox first: sb.resume() or POST /v1/resume.",
        context={"sandbox": sandbox_id},
    )


def check_timeout(requested_s: int, ceiling_s: int, sandbox_id: str) -> None:
    """Refuses a timeout over the server's ceiling; 0 means no ceiling.

    Raises:
        ApiError: `timeout_too_large`; never clamped.
    """
    if 0 < ceiling_s < requested_s:
        raise ApiError(
            "timeout_too_large",
            f"a timeout of {requested_s} s is over the ceiling of {ceiling_s} s",
            context={
                "sandbox": sandbox_id,
                "requested_s": requested_s,
                "max_timeout_s": ceiling_s,
            },
        )
