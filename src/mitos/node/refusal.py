"""What a node says when it refuses: one function for each reason several operations share."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator

from mitos.engine.base import EngineError, EngineFault
from mitos.wire.errors import ApiError, ConnectCode, conflict

__all__ = [
    "HOST_FAULTS",
    "busy",
    "check_timeout",
    "draining",
    "engine_errors",
    "host_fault",
    "id_in_use",
    "no_space",
    "not_running",
    "server_stopping",
    "storage_errors",
    "storage_failed",
    "translate",
    "unknown_template",
]

_log = logging.getLogger(__name__)

_CODE_OF_FAULT = {
    EngineFault.UNAVAILABLE: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.UNSUPPORTED: ("internal", ConnectCode.UNIMPLEMENTED),
    EngineFault.NO_SPACE: ("quota_exceeded", ConnectCode.RESOURCE_EXHAUSTED),
    EngineFault.TIMED_OUT: ("internal", ConnectCode.UNAVAILABLE),
    EngineFault.FAILED: ("internal", ConnectCode.INTERNAL),
}


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)

_FULL_TEXTS = ("no space left on device", "too little free space")
"""What programs say of a full disk, and we where an archive would fill one."""

HOST_FAULTS = frozenset({*_FULL, *_NO_DESCRIPTORS, errno.EROFS, errno.EIO})
"""What is the host's fault alone, whatever we did."""


def translate(error: EngineError, what: str) -> ApiError:
    """An engine's error as one of the catalogue."""
    fault = error.fault
    if fault is EngineFault.FAILED and (refusal := host_fault(error, what)) is not None:
        return refusal
    code, connect = _CODE_OF_FAULT[fault]
    context = {"dimension": "disk"} if fault is EngineFault.NO_SPACE else None
    return ApiError(
        code,
        what,
        cause=str(error),
        remediation=error.remediation,
        context=context,
        connect=connect,
    )


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turns the engine's errors, and the host's in what it does, into ours."""
    try:
        with storage_errors(what):
            yield
    except EngineError as exc:
        raise translate(exc, what) from exc


def host_fault(error: BaseException, what: str) -> ApiError | None:
    """The refusal of what failed by the host's fault alone, also in a program that we ran.

    Args:
        error: whose causes are looked through.
        what: failed.
    """
    if any(text in str(error).lower() for text in _FULL_TEXTS):
        return no_space(what, str(error))
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in HOST_FAULTS:
            return storage_failed(cause, what)
        cause = cause.__cause__
    return None


def no_space(what: str, cause: str) -> ApiError:
    """A disk is full, or has no room for another file."""
    return ApiError(
        "quota_exceeded",
        what,
        cause=cause,
        remediation="Free space on the disk of the server's home or scratch folder; ending"
        " sandboxes helps.",
        context={"dimension": "disk"},
    )


def storage_failed(error: OSError, what: str) -> ApiError:
    """A failure of the host's storage: full, without descriptors, read-only, broken."""
    if error.errno in _FULL:
        return no_space(what, str(error))
    if error.errno in _NO_DESCRIPTORS:
        return ApiError(
            "quota_exceeded",
            what,
            cause=str(error),
            remediation="End sandboxes or close connections, or start the server with a higher"
            " `ulimit -n`.",
            context={"dimension": "descriptors"},
        )
    _log.error("%s", what, exc_info=error)
    return ApiError(
        "internal",
        what,
        cause=str(error),
        remediation="Look at the disk of the server's home and at the server's log.",
        status=503,
        connect=ConnectCode.UNAVAILABLE,
    )


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns the failures of the host's storage into ours.

    A lost connection or a deadline is another's affair and passes.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as exc:
        raise storage_failed(exc, what) from exc


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


def server_stopping() -> ApiError:
    """The server stops, and sandboxes live on without it."""
    return ApiError(
        "internal",
        "the server is being restarted",
        cause="its sandboxes live on",
        remediation="Send the request again in a moment.",
        context={"retry_after_ms": 1000},
        status=503,
        connect=ConnectCode.UNAVAILABLE,
    )


def draining() -> ApiError:
    """The server takes no new work: it is to be stopped, for longer than a restart takes."""
    return ApiError(
        "internal",
        "the server is being drained",
        cause="it serves the sandboxes it has and takes no new work",
        remediation="Use another server, or send the request again when `mitos drain --undo` has"
        " ended it or the server was restarted.",
        status=503,
        connect=ConnectCode.UNAVAILABLE,
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
