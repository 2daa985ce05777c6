"""What a node says when it refuses: one function for each reason several operations share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mitos.engine.base import EngineError
from mitos.node.launch import translate
from mitos.node.ledger import EndReason
from mitos.wire.errors import ApiError, ConnectCode

__all__ = ["busy", "conflict", "ended", "engine_errors", "unknown_sandbox", "unknown_template"]

_CAUSE_OF_END = {
    EndReason.OUT_OF_MEMORY: "it reached its memory limit and was killed",
    EndReason.EXITED: "its first process ended",
    EndReason.LOST: "its processes vanished from the host",
    EndReason.SERVER_STOPPED: "its server was stopped",
    EndReason.UNREADABLE: "it was hibernated, and this server cannot read its snapshot",
}


def unknown_sandbox(sandbox_id: str) -> ApiError:
    """No such sandbox, or its user ended it."""
    return ApiError(
        "not_found", f"no sandbox named {sandbox_id!r}", context={"sandbox": sandbox_id}
    )


def unknown_template(template_id: str) -> ApiError:
    """No such template."""
    return ApiError(
        "not_found",
        f"no template named {template_id!r}",
        remediation="Create it first: POST /v1/templates.",
        context={"template": template_id},
    )


def ended(sandbox_id: str, reason: EndReason | None) -> ApiError:
    """The error for a sandbox that is not there: unknown, reaped, or ended by itself."""
    if reason is EndReason.DEADLINE:
        return ApiError(
            "idle_timeout",
            f"sandbox {sandbox_id} ended at its deadline",
            context={"sandbox": sandbox_id},
        )
    if reason is None or reason is EndReason.TERMINATED:
        return unknown_sandbox(sandbox_id)
    return ApiError(
        "not_found",
        f"sandbox {sandbox_id} has ended",
        cause=_CAUSE_OF_END[reason],
        remediation="Create a new sandbox; a larger resources.mem_size_mib helps against memory."
        if reason is EndReason.OUT_OF_MEMORY
        else "Create a new sandbox.",
        context={"sandbox": sandbox_id},
    )


def conflict(sandbox_id: str, message: str, remediation: str) -> ApiError:
    """What was asked does not fit the state the sandbox is in."""
    return ApiError(
        "invalid_input",
        message,
        remediation=remediation,
        context={"sandbox": sandbox_id},
        status=409,
        connect=ConnectCode.FAILED_PRECONDITION,
    )


def busy(sandbox_id: str, action: str) -> ApiError:
    """Calls are open that the action would cut off."""
    return conflict(
        sandbox_id,
        f"sandbox {sandbox_id} has open calls and cannot be {action}",
        "Close its commands, terminals and transfers, or wait for them, then try again.",
    )


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turns the engine's errors into ours, at the node's edge."""
    try:
        yield
    except EngineError as exc:
        raise translate(exc, what) from exc
